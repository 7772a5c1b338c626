/**
 * The determinism grid: the same training with every number of rollout workers and learners, with and without kills,
 * must end with the same bytes.
 */
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { runTraining } from "./chaos-run.js";
import { compareJournals, type JournalFacts } from "./journal-audit.js";
import { plannedFault } from "./faults.js";
import { prepareTraining } from "./training.js";

export interface TopologyOptions {
  readonly rollouts: readonly number[];
  readonly learners: readonly number[];
  readonly iterations: number;
  /** `kill -9` per run of the second half of the grid; 0 leaves that half out. */
  readonly kills: number;
  readonly seed: number;
  readonly folder: string;
  readonly onCell?: (cell: TopologyCell) => void;
  readonly signal: AbortSignal;
}

export interface TopologyCell {
  readonly rollouts: number;
  readonly learners: number;
  /** Kills carried out. */
  readonly kills: number;
  /** Of parameters and optimizer state; "" when the run did not end. */
  readonly stateSha256: string;
  readonly seconds: number;
  /** What was broken; empty when nothing was. */
  readonly problems: readonly string[];
}

/** @returns every cell of the grid; all is well when none has problems */
export async function verifyTopology(options: TopologyOptions): Promise<TopologyCell[]> {
  const cells: TopologyCell[] = [];
  let first: { readonly stateSha256: string; readonly journal: JournalFacts } | undefined;
  let faultNumber = 0;
  for (const kills of options.kills > 0 ? [0, options.kills] : [0]) {
    for (const rollouts of options.rollouts) {
      for (const learners of options.learners) {
        const training = await prepareTraining({
          inputDir: join(options.folder, "input"),
          rollouts,
          learners,
          iterations: options.iterations,
        });
        const lastFault = faultNumber + kills;
        const runDir = join(options.folder, `r${rollouts}-l${learners}-k${kills}`);
        const run = await runTraining({
          training,
          runDir,
          run: cells.length,
          due: () =>
            faultNumber < lastFault
              ? plannedFault(faultNumber + 1, {
                  seed: options.seed,
                  // A lone learner's end costs more than a step in flight; that is tested apart.
                  roles: learners > 1 ? ["rollout", "learner", "coordinator"] : ["rollout", "coordinator"],
                  signals: ["SIGKILL"],
                  longestStopMs: 0,
                })
              : undefined,
          onInjected: () => void (faultNumber += 1),
          signal: options.signal,
        });
        faultNumber = lastFault;
        const stateSha256 = run.summary?.stateSha256 ?? "";
        if (run.journal !== undefined) first ??= { stateSha256, journal: run.journal };
        const violations = [
          ...run.violations,
          ...(first !== undefined && run.journal !== undefined
            ? compareJournals(first.journal, run.journal)
            : []),
        ];
        const problems = violations.map(({ invariant, detail }) => `${invariant}: ${detail}`);
        if (stateSha256 !== first?.stateSha256)
          problems.push("the final state differs from that of the first cell");
        const cell = {
          rollouts,
          learners,
          kills: run.faults.length,
          stateSha256,
          seconds: run.seconds,
          problems,
        };
        cells.push(cell);
        options.onCell?.(cell);
        if (problems.length === 0) await rm(runDir, { recursive: true, force: true, maxRetries: 3 });
      }
    }
  }
  return cells;
}
