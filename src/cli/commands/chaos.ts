/** `troupe chaos`: a small training under random faults, compared with the same training without. */
import { Option, InvalidArgumentError, type Command } from "commander";
import type { Lifetime } from "../lifetime.js";
import { collect, wholeNumber } from "../options.js";
import type { ProcessRole } from "../../shared/roles.js";

interface ChaosOptions {
  readonly kills: number;
  readonly roles: ProcessRole[];
  readonly signals: ("SIGKILL" | "SIGSTOP")[];
  readonly seed: number;
  readonly rollouts: number;
  readonly learners: number;
  readonly iterations?: number;
  readonly leaseTtl: number;
  readonly gap: number;
  readonly runDir?: string;
  readonly keep?: boolean;
  readonly set?: string[];
  readonly json?: boolean;
}

/** The runs ended, and something promised was broken. */
const EXIT_VIOLATIONS = 1;
/** About as many faults as iterations fit into a run; more iterations than this only make it longer. */
const MOST_ITERATIONS = 30;
const FEWEST_ITERATIONS = 6;

export function registerChaos(program: Command, lifetime: Lifetime): void {
  program
    .command("chaos")
    .description("kill processes of a small training at random and check that nothing is lost")
    .option("--kills <n>", "faults to carry out, over as many runs as it takes", wholeNumber(1), 30)
    .addOption(listOption("--roles <list>", "whom to hit", ["rollout", "learner", "coordinator"]))
    .addOption(
      listOption(
        "--signals <list>",
        "SIGKILL, or SIGSTOP for a random time, then SIGCONT",
        ["SIGKILL", "SIGSTOP"],
        ["SIGKILL"],
      ),
    )
    .option("--seed <n>", "of the faults: their times, phases and victims", wholeNumber(0), 1)
    .option("--rollouts <n>", "rollout processes", wholeNumber(1, 64), 2)
    .option("--learners <n>", "learner processes; a lone one is never killed", wholeNumber(1, 64), 2)
    .option("--iterations <n>", "ppo iterations of each run (default: by --kills)", wholeNumber(1, 200))
    .option("--lease-ttl <ms>", "a worker silent for this long is lost", wholeNumber(2_000), 10_000)
    .option("--gap <ms>", "at least this long between two faults", wholeNumber(0), 0)
    .option(
      "--run-dir <dir>",
      "new folder for the runs; those without a violation are deleted (default: temporary)",
    )
    .option("--keep", "with --run-dir: keep those as well")
    .option("--set <a.b=value>", "set one field of the training, the value in YAML; may be repeated", collect)
    .option("--json", "print the report as JSON")
    .action(async (options: ChaosOptions) => {
      const [{ mkdtemp, rm }, { tmpdir }, { join, resolve }] = await Promise.all([
        import("node:fs/promises"),
        import("node:os"),
        import("node:path"),
      ]);
      const { runCampaign } = await import("../../chaos/campaign.js");
      const { timeReplay } = await import("../../chaos/replay-probe.js");
      const { REPLAYED_RECORDS, reportOf, reportText } = await import("../../chaos/report.js");
      const { kills, leaseTtl, runDir } = options;
      const folder = runDir === undefined ? await mkdtemp(join(tmpdir(), "troupe-chaos-")) : resolve(runDir);
      const say = (text: string) => void (options.json === true ? undefined : console.log(text));
      const campaign = await runCampaign({
        kills,
        roles: options.roles,
        signals: options.signals,
        // Half as long again as the lease: some of the stopped are given up and come back as strangers.
        longestStopMs: 1.5 * leaseTtl,
        seed: options.seed,
        rollouts: options.rollouts,
        learners: options.learners,
        iterations: options.iterations ?? Math.min(MOST_ITERATIONS, Math.max(FEWEST_ITERATIONS, kills)),
        leaseTtlMs: leaseTtl,
        gapMs: options.gap,
        sets: options.set,
        folder,
        isKept: options.keep,
        signal: lifetime.signal,
        onEvent: (event) => {
          if (event.type !== "run") return;
          const { run, isTwin, faultsDone } = event;
          const what = isTwin ? "without faults" : `run ${run.run}: ${run.faults.length} faults`;
          const verdict =
            run.violations.length === 0 ? "no violation" : `${run.violations.length} VIOLATIONS`;
          const done = isTwin ? "" : `; ${faultsDone} of ${kills} done`;
          say(`${what}, ${run.seconds.toFixed(1)} s, ${verdict}${done}`);
        },
      });
      const report = reportOf(campaign, await timeReplay(REPLAYED_RECORDS));
      console.log(options.json === true ? JSON.stringify(report, null, 2) : `\n${reportText(report)}`);
      if (report.violations.length > 0) {
        console.error(`the runs with violations are kept in ${folder}`);
        process.exitCode = EXIT_VIOLATIONS;
      } else if (runDir === undefined) await rm(folder, { recursive: true, force: true });
    });
}

function listOption<T extends string>(
  flags: string,
  description: string,
  choices: readonly T[],
  defaults: readonly T[] = choices,
): Option {
  return new Option(flags, `${description}: ${choices.join(", ")}`)
    .default([...defaults], defaults.join(","))
    .argParser((text: string): T[] => {
      const names = text.split(",").map((name) => name.trim());
      const wrong = names.find((name) => !choices.includes(name as T));
      if (wrong !== undefined)
        throw new InvalidArgumentError(
          `Expected a list of ${choices.join(", ")}, got ${JSON.stringify(wrong)}.`,
        );
      return names as T[];
    });
}
