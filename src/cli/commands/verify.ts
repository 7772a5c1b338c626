/** `troupe verify`: recompute known results with the functions that training uses. */
import type { Command } from "commander";
import { Option } from "commander";
import type { Engine } from "../../engine/engine.js";
import { describeError, errorCodeOf, EXIT_CODES } from "../../shared/errors.js";
import type { QuantityError } from "../../verify/error-table.js";

// Tensor code is imported by the commands that run it: every other command starts without it.

/** Absolute error up to magnitude 1, relative above. */
const GOLDEN_LIMIT = 1e-5;
/** A check ran to its end and found numbers outside their limit. */
const EXIT_OUTSIDE_LIMIT = 1;

interface EngineChoice {
  readonly engine: "reference" | "onnx" | "tensorflow";
}

export function registerVerify(program: Command): void {
  const verify = program.command("verify").description("check the algorithms against known results");

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
