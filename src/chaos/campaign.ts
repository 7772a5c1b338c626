/** A training without faults, then the same under faults, as often as it takes to carry out all of them. */
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { runTraining, type ChaosRun } from "./chaos-run.js";
import { plannedFault, type FaultOptions, type InjectedFault } from "./faults.js";
import { compareJournals, type JournalFacts } from "./journal-audit.js";
import { prepareTraining, type TrainingPlan } from "./training.js";
import type { Summary } from "../launcher/summary.js";
import type { Violation } from "./violation.js";

export interface CampaignOptions extends FaultOptions {
  readonly kills: number;
  readonly rollouts: number;
  readonly learners: number;
  readonly iterations: number;
  /** `cluster.leaseTtlMs` of the training. */
  readonly leaseTtlMs: number;
  /** At least this long between two faults, ms. */
  readonly gapMs: number;
  /** Further settings of the training, `a.b=value`. */
  readonly sets?: readonly string[];
  /** Holds one run directory per run. */
  readonly folder: string;
  /** Runs without a violation stay there too. */
  readonly isKept?: boolean;
  readonly onEvent?: (event: CampaignEvent) => void;
  readonly signal: AbortSignal;
}

export type CampaignEvent =
  | { readonly type: "fault"; readonly fault: InjectedFault }
  | { readonly type: "run"; readonly run: ChaosRun; readonly isTwin: boolean; readonly faultsDone: number };

export interface Campaign {
  readonly options: CampaignOptions;
  readonly plan: TrainingPlan;
  readonly twin: ChaosRun;
  /** Under faults, each compared with the twin. */
  readonly runs: readonly ChaosRun[];
  readonly violations: readonly (Violation & { readonly run: number })[];
}

/** Runs that carry out no fault at all would never end. */
const MAX_FRUITLESS_RUNS = 3;

export async function runCampaign(options: CampaignOptions): Promise<Campaign> {
  const { folder, kills, signal } = options;
  const training = await prepareTraining({ ...options, inputDir: join(folder, "input"), seed: undefined });
  const twin = await runTraining({
    training,
    runDir: join(folder, "twin"),
    run: 0,
    due: () => undefined,
    signal,
  });
  options.onEvent?.({ type: "run", run: twin, isTwin: true, faultsDone: 0 });
  const runs: ChaosRun[] = [];
  let done = 0;
  let fruitless = 0;
  // A twin with violations is no measure of anything.
  while (twin.violations.length === 0 && done < kills && fruitless < MAX_FRUITLESS_RUNS) {
    const before = done;
    const runDir = join(folder, `run-${runs.length + 1}`);
    const run = await runTraining({
      training,
      runDir,
      run: runs.length + 1,
      due: () => (done < kills ? plannedFault(done + 1, options) : undefined),
      onInjected: (fault) => {
        done += 1;
        options.onEvent?.({ type: "fault", fault });
      },
      gapMs: options.gapMs,
      signal,
    });
    const violations = [...run.violations, ...compareWithTwin(twin, run, training.plan), ...redone(run)];
    const compared = { ...run, violations };
    runs.push(compared);
    fruitless = done === before ? fruitless + 1 : 0;
    options.onEvent?.({ type: "run", run: compared, isTwin: false, faultsDone: done });
    // What went well need not be looked at; a thousand kills would fill the disk.
    if (compared.violations.length === 0 && options.isKept !== true)
      await rm(runDir, { recursive: true, force: true, maxRetries: 3 });
  }
  const violations = [twin, ...runs].flatMap((run) =>
    run.violations.map((violation) => ({ ...violation, run: run.run })),
  );
  if (done < kills && twin.violations.length === 0)
    violations.push({
      run: runs.length,
      invariant: "failed",
      detail: `only ${done} of ${kills} faults were possible`,
    });
  return { options, plan: training.plan, twin, runs, violations };
}

/**
 * At most the step in flight is begun again by a kill, and no committed one while a learner lives that holds it: one
 * always does (injector.ts), unless the coordinator was away for so long that the learners ended. Whoever was only stopped
 * may be given up while it holds the newest state.
 */
export function redone({
  journal,
  faults,
  learnersGivenUp,
}: Pick<ChaosRun, "journal" | "faults" | "learnersGivenUp">): Violation[] {
  if (journal === undefined || faults.some(({ planned }) => planned.signal !== "SIGKILL")) return [];
  const { stepsBegunAgain, stepsReplayed } = journal;
  const violations: Violation[] = [];
  if (stepsBegunAgain > faults.length)
    violations.push({
      invariant: "redone",
      detail: `${stepsBegunAgain} steps begun again by ${faults.length} kills`,
    });
  if (stepsReplayed > 0 && learnersGivenUp === 0)
    violations.push({ invariant: "redone", detail: `${stepsReplayed} committed steps were computed again` });
  return violations;
}

/** Numbers that depend on the machine and its load, not on the training. */
const NOT_COMPARED = new Set(["seconds", "processes", "model"]);

export function compareWithTwin(twin: ChaosRun, run: ChaosRun, plan: TrainingPlan): Violation[] {
  const violations: Violation[] = [];
  const { isReproducible } = plan;
  if (twin.journal !== undefined && run.journal !== undefined && isReproducible)
    violations.push(...compareJournals(twin.journal, run.journal));
  if (twin.summary === undefined || run.summary === undefined) {
    if (run.violations.length === 0)
      violations.push({ invariant: "summary", detail: "the run ended well and left no summary.json" });
    return violations;
  }
  violations.push(...checkLedger(run.summary, run.journal));
  if (!isReproducible) return violations;
  const { stateSha256: expected } = twin.summary;
  const { stateSha256: got } = run.summary;
  if (got !== expected)
    violations.push({ invariant: "final state", detail: `${got}, without faults ${expected}` });
  const [a, b] = [results(twin.summary), results(run.summary)];
  for (const name of new Set([...Object.keys(a), ...Object.keys(b)])) {
    if (a[name] === b[name] || name === "stateSha256") continue;
    violations.push({ invariant: "summary", detail: `${name}: ${b[name]}, without faults ${a[name]}` });
  }
  return violations;
}

/** What the summary says became of the experiences, against itself and against the journal's records. */
function checkLedger(summary: Summary, journal: JournalFacts | undefined): Violation[] {
  const { admitted = 0, trained = 0, dropped = 0, buffered = 0 } = summary.ppo?.experiences ?? {};
  const said = `summary.json: admitted ${admitted}, trained ${trained}, dropped ${dropped}, buffered ${buffered}`;
  const violations: Violation[] = [];
  if (admitted !== trained + dropped + buffered)
    violations.push({ invariant: "ledger", detail: `${said}, which does not balance` });
  if (journal === undefined) return violations;
  const lost = Object.values(journal.dropped).reduce((sum, count) => sum + count, 0);
  if (trained !== journal.trained || dropped !== lost)
    violations.push({
      invariant: "ledger",
      detail: `${said}; the journal: trained ${journal.trained}, dropped ${lost}`,
    });
  return violations;
}

const results = (summary: Summary): Record<string, string> =>
  Object.fromEntries(
    Object.entries(summary)
      .filter(([name]) => !NOT_COMPARED.has(name))
      .map(([name, value]) => [name, JSON.stringify(value)]),
  );
