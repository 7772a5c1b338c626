/** `troupe verify`: recompute known results with the functions that training uses. */
import type { Command } from "commander";
import { InvalidArgumentError, Option } from "commander";
import type { Engine } from "../../engine/engine.js";
import { describeError, errorCodeOf, EXIT_CODES } from "../../shared/errors.js";
import type { QuantityError } from "../../verify/error-table.js";
import type { Lifetime } from "../lifetime.js";
import { wholeNumber } from "../options.js";

// Tensor code is imported by the commands that run it: every other command starts without it.

/** Absolute error up to magnitude 1, relative above. */
const GOLDEN_LIMIT = 1e-5;
/** Share of the achievable gap that training must close. */
const REQUIRED_SHARE = 0.95;

/** A check ran to its end and found numbers outside their limit. */
const EXIT_OUTSIDE_LIMIT = 1;

interface EngineChoice {
  readonly engine: "reference" | "onnx" | "tensorflow";
}

export function registerVerify(program: Command, lifetime: Lifetime): void {
  const verify = program.command("verify").description("check the algorithms against known results");
  registerGolden(verify);
  registerOptimum(verify);
  registerStaleness(verify);
  registerBradleyTerry(verify);
  registerTopology(verify, lifetime);
}

function registerGolden(verify: Command): void {
  verify
    .command("golden")
    .description(`recompute golden files; exit 0 only if every number is within ${GOLDEN_LIMIT}`)
    .argument("<file...>", "JSON files of inputs and results, e.g. test/golden/dschat-golden.json")
    .addOption(engineOption())
    .action(async (files: string[], { engine }: EngineChoice) => {
      await withEngine(engine, async (chosen) => {
        const { verifyGolden } = await import("../../verify/golden.js");
        for (const file of files) {
          const quantities = await verifyGolden(file, chosen);
          const isWithin = printErrors(file, quantities);
          if (!isWithin) process.exitCode = EXIT_OUTSIDE_LIMIT;
        }
      });
    });
}

function registerOptimum(verify: Command): void {
  verify
    .command("optimum")
    .description(
      `train PPO on an enumerable task; exit 0 from ${REQUIRED_SHARE} of the gap to the exact optimum`,
    )
    .addOption(engineOption())
    .addOption(seedOption())
    .action(async ({ engine, seed }: EngineChoice & SeedChoice) => {
      await withEngine(engine, async (chosen) => {
        const { OPTIMUM_DEFAULTS, verifyOptimum } = await import("../../verify/optimum.js");
        const result = await verifyOptimum(chosen, { ...OPTIMUM_DEFAULTS, seed });
        const { start, reached, optimum, share, kl, sampledKl, optimumKl } = result;
        console.log("objective J(π) = E[r] − β·KL(π ‖ π_ref), exact by enumeration");
        printNumbers({
          "J(π_ref)": start,
          "J(π) after PPO": reached,
          "max J = β·log E_ref[exp(r/β)]": optimum,
          "KL(π ‖ π_ref), exact": kl,
          "KL(π ‖ π_ref), k1 on the last rollouts": sampledKl,
          "KL(π* ‖ π_ref)": optimumKl,
        });
        reportShares({ "share of the gap closed": share });
      });
    });
}

function registerStaleness(verify: Command): void {
  verify
    .command("staleness")
    .description("train PPO on the same task with stale experience, plain and corrected; prints a table")
    .addOption(engineOption())
    .option("--seeds <number>", "runs of each cell, on tasks of seeds 1, 2, ...", wholeNumber(1), 3)
    .option("--learning-rate <number>", "the actor's peak; the faster, the staler", Number, 0.05)
    .action(async ({ engine, seeds, learningRate }: EngineChoice & StalenessChoice) => {
      await withEngine(engine, async (chosen) => {
        const { verifyStaleness } = await import("../../verify/staleness.js");
        const numbered = Array.from({ length: seeds }, (_, i) => i + 1);
        const rows = await verifyStaleness(chosen, { seeds: numbered, learningRate });
        console.log("share of the gap to the exact optimum: mean ± its standard error over seeds");
        for (const { staleness, shares } of rows) {
          const cells = Object.entries(shares).map(
            ([kind, { mean, error }]) => `${kind} ${mean.toFixed(3)} ± ${error.toFixed(3)}`,
          );
          console.log(`  staleness ${staleness}   ${cells.join("   ")}`);
        }
      });
    });
}

function registerBradleyTerry(verify: Command): void {
  verify
    .command("bradley-terry")
    .description(
      `fit the reward-model loss to known rewards; exit 0 from ${REQUIRED_SHARE} of what is achievable`,
    )
    .addOption(engineOption())
    .addOption(seedOption())
    .action(async ({ engine, seed }: EngineChoice & SeedChoice) => {
      await withEngine(engine, async (chosen) => {
        const { BRADLEY_TERRY_DEFAULTS, verifyBradleyTerry } = await import("../../verify/bradley-terry.js");
        const result = await verifyBradleyTerry(chosen, { ...BRADLEY_TERRY_DEFAULTS, seed });
        console.log("held-out pairs, expected over labels drawn with P = σ(Δr)");
        printNumbers({
          accuracy: result.accuracy,
          "ceiling E[σ(|Δr|)]": result.accuracyCeiling,
          loss: result.loss,
          "floor E[H(σ(Δr))]": result.lossFloor,
        });
        reportShares({
          "share of the accuracy gap closed": result.accuracyShare,
          "share of the loss gap closed": result.lossShare,
        });
      });
    });
}

function registerTopology(verify: Command, lifetime: Lifetime): void {
  verify
    .command("topology")
    .description(
      "train with 1, 2, 4 rollout workers and 1 to 4 learners, with and without kills: the same bytes",
    )
    .option("--kills <n>", "kills in each run of the second half; 0 leaves it out", wholeNumber(0), 3)
    .option("--iterations <n>", "ppo iterations of each run", wholeNumber(1, 200), 4)
    .addOption(seedOption())
    .action(async ({ kills, iterations, seed }: SeedChoice & { kills: number; iterations: number }) => {
      const [{ mkdtemp, rm }, { tmpdir }, { join }] = await Promise.all([
        import("node:fs/promises"),
        import("node:os"),
        import("node:path"),
      ]);
      const { verifyTopology } = await import("../../chaos/topology.js");
      const folder = await mkdtemp(join(tmpdir(), "troupe-topology-"));
      console.log("rollouts  learners  kills  seconds  sha256 of parameters and optimizer state");
      const cells = await verifyTopology({
        rollouts: [1, 2, 4],
        learners: [1, 2, 3, 4],
        iterations,
        kills,
        seed,
        folder,
        signal: lifetime.signal,
        onCell: ({ rollouts, learners, kills, seconds, stateSha256, problems }) => {
          const cell = [
            String(rollouts).padStart(8),
            String(learners).padStart(8),
            String(kills).padStart(5),
          ];
          console.log([...cell, seconds.toFixed(1).padStart(7), stateSha256 || "none"].join("  "));
          for (const problem of problems) console.log(`  ${problem}`);
        },
      });
      const bad = cells.filter(({ problems }) => problems.length > 0);
      if (bad.length > 0) {
        console.log(
          `${bad.length} of ${cells.length} runs differ or broke a promise; they are kept in ${folder}`,
        );
        process.exitCode = EXIT_OUTSIDE_LIMIT;
        return;
      }
      console.log(`all ${cells.length} runs end with the same bytes`);
      await rm(folder, { recursive: true, force: true });
    });
}

interface StalenessChoice {
  readonly seeds: number;
  readonly learningRate: number;
}

interface SeedChoice {
  readonly seed: number;
}

const seedOption = () =>
  new Option("--seed <number>", "seed of the task and of all sampling").default(1).argParser((text) => {
    const seed = Number(text);
    if (!Number.isSafeInteger(seed) || seed < 0)
      throw new InvalidArgumentError("expected a whole number from 0.");
    return seed;
  });

function printNumbers(numbers: Readonly<Record<string, number>>): void {
  const width = Math.max(...Object.keys(numbers).map((name) => name.length));
  for (const [name, value] of Object.entries(numbers))
    console.log(`  ${name.padEnd(width)}  ${value.toFixed(4)}`);
}

function reportShares(shares: Readonly<Record<string, number>>): void {
  for (const [name, share] of Object.entries(shares)) {
    const isEnough = share >= REQUIRED_SHARE;
    console.log(`${name}: ${share.toFixed(4)} (${isEnough ? "at least" : "BELOW"} ${REQUIRED_SHARE})`);
    if (!isEnough) process.exitCode = EXIT_OUTSIDE_LIMIT;
  }
}

const engineOption = () =>
  new Option("--engine <name>", "engine that computes losses and gradients")
    .choices(["reference", "onnx", "tensorflow"])
    .default("reference");

async function withEngine(
  name: EngineChoice["engine"],
  run: (engine: Engine) => Promise<void>,
): Promise<void> {
  try {
    const { createEngine } = await import("../../engine/create-engine.js");
    const { engine } = await createEngine({ name });
    try {
      await run(engine);
    } finally {
      await engine.dispose();
    }
  } catch (error) {
    console.error(`troupe verify: ${describeError(error)}`);
    process.exitCode = EXIT_CODES[errorCodeOf(error)];
  }
}

/** @returns whether all errors are within the limit */
function printErrors(file: string, quantities: readonly QuantityError[]): boolean {
  const width = Math.max(...quantities.map(({ quantity }) => quantity.length));
  console.log(`${file}\n${"quantity".padEnd(width)}  cases  largest error  within ${GOLDEN_LIMIT}`);
  for (const { quantity, cases, maxError } of quantities) {
    const verdict = maxError <= GOLDEN_LIMIT ? "yes" : "NO";
    console.log(
      `${quantity.padEnd(width)}  ${String(cases).padStart(5)}  ${maxError.toExponential(2).padStart(13)}  ${verdict}`,
    );
  }
  const outside = quantities.filter(({ maxError }) => !(maxError <= GOLDEN_LIMIT));
  console.log(
    outside.length === 0
      ? `all ${quantities.length} quantities are within ${GOLDEN_LIMIT}`
      : `${outside.length} of ${quantities.length} quantities are outside ${GOLDEN_LIMIT}`,
  );
  return outside.length === 0;
}
