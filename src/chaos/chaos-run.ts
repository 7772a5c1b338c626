/** One run of the training, by the launcher that `troupe run` uses, with or without faults. */
import { createWriteStream } from "node:fs";
import { mkdir } from "node:fs/promises";
import { once } from "node:events";
import { join } from "node:path";
import { launch } from "../launcher/launch.js";
import { ProgressView } from "../launcher/progress-view.js";
import { openRunDirectory } from "../launcher/run-directory.js";
import { readSummary, type Summary } from "../launcher/summary.js";
import { sleep } from "../shared/abort.js";
import { describeError, TroupeError } from "../shared/errors.js";
import type { InjectedFault, PlannedFault } from "./faults.js";
import { injectFaults } from "./injector.js";
import { auditJournal, type JournalFacts } from "./journal-audit.js";
import { RunObserver } from "./observer.js";
import { ProcessTable } from "./process-table.js";
import { readCoordinatorLog, recoveryTimes, type RecoveryTimes } from "./recovery.js";
import type { Training } from "./training.js";
import type { Violation } from "./violation.js";

export interface ChaosRunOptions {
  readonly training: Training;
  readonly runDir: string;
  /** Number of the run, for reports. */
  readonly run: number;
  readonly due: () => PlannedFault | undefined;
  readonly onInjected?: (fault: InjectedFault) => void;
  readonly gapMs?: number;
  readonly signal: AbortSignal;
}

export interface ChaosRun {
  readonly run: number;
  readonly runDir: string;
  readonly faults: readonly InjectedFault[];
  /** Wall-clock seconds from start to the end of the last process. */
  readonly seconds: number;
  readonly summary: Summary | undefined;
  readonly journal: JournalFacts | undefined;
  /** Learners that ended by themselves, because the coordinator was away for longer than they wait. */
  readonly learnersGivenUp: number;
  readonly recovery: RecoveryTimes;
  readonly violations: readonly Violation[];
}

/** Without a step, an experience or a worker that comes or goes; above every timeout, and what a starved machine takes. */
const STUCK_AFTER_MS = 300_000;

/** Restarts cost the run's time, not its correctness: as soon as possible, and as often as there are faults. */
const RESTARTS = { maxRestarts: 1_000_000, baseDelayMs: 50, maxDelayMs: 50, leaveDelayMs: 200 };

export async function runTraining(options: ChaosRunOptions): Promise<ChaosRun> {
  const { training, runDir, run, signal } = options;
  const directory = await openRunDirectory(runDir, { config: training.config });
  await mkdir(directory.logDir, { recursive: true });
  const output = createWriteStream(join(directory.logDir, "launcher.log"));
  const ended = new AbortController();
  const stopping = new AbortController();
  const onSignal = () => stopping.abort(signal.reason);
  signal.addEventListener("abort", onSignal, { once: true });
  if (signal.aborted) onSignal();

  const processes = new ProcessTable();
  const observer = new RunObserver(directory.path, ended.signal);
  const faults: InjectedFault[] = [];
  const violations: Violation[] = [];
  const startedMs = performance.now();
  const observing = observer.run();
  const injecting = injectFaults({
    run,
    plan: training.plan,
    observer,
    processes,
    due: options.due,
    onInjected: (fault) => {
      faults.push(fault);
      options.onInjected?.(fault);
    },
    gapMs: options.gapMs ?? 0,
    signal: ended.signal,
  });
  const guarding = stopWhenStuck(observer, stopping, ended.signal);
  try {
    await launch({
      config: training.config,
      directory,
      view: new ProgressView({ stream: output }),
      signal: stopping.signal,
      policy: RESTARTS,
      onProcess: processes.note,
    });
  } catch (error) {
    signal.throwIfAborted();
    const isStuck = stopping.signal.aborted;
    violations.push({ invariant: isStuck ? "stuck" : "failed", detail: describeError(error) });
  } finally {
    ended.abort();
    processes.resumeAll();
    signal.removeEventListener("abort", onSignal);
    await Promise.all([observing, injecting, guarding]);
    output.end();
    await once(output, "close");
    await directory.release();
  }
  const seconds = (performance.now() - startedMs) / 1000;
  violations.push(...observer.violations);
  const summary = await readSummary(runDir);
  let journal: JournalFacts | undefined;
  try {
    journal = await auditJournal(runDir, training.plan);
    // A run that did not end has not done everything: that it did not end is the violation.
    if (summary !== undefined) violations.push(...journal.violations);
  } catch (error) {
    violations.push({ invariant: "journal", detail: describeError(error) });
  }
  const recovery = recoveryTimes(faults, await readCoordinatorLog(runDir), observer.progress);
  const { learnersGivenUp } = processes;
  return { run, runDir, faults, seconds, summary, journal, learnersGivenUp, recovery, violations };
}

async function stopWhenStuck(
  observer: RunObserver,
  stopping: AbortController,
  ended: AbortSignal,
): Promise<void> {
  while (!ended.aborted) {
    await sleep(1_000, ended);
    if (performance.now() - observer.changedAtMs < STUCK_AFTER_MS) continue;
    stopping.abort(new TroupeError("CANCELLED", `nothing happened for ${STUCK_AFTER_MS / 1000} s`));
    return;
  }
}
