/** Carries out planned faults on a running fleet, one after another, each as soon as what it is aimed at is there. */
import type { RunStatus } from "../rpc/control-client.js";
import { sleep } from "../shared/abort.js";
import type { InjectedFault, PlannedFault } from "./faults.js";
import type { RunObserver } from "./observer.js";
import { phaseOf } from "./phase.js";
import type { ProcessTable, RunningProcess } from "./process-table.js";
import type { TrainingPlan } from "./training.js";

export interface InjectorOptions {
  readonly run: number;
  readonly plan: TrainingPlan;
  readonly observer: RunObserver;
  readonly processes: ProcessTable;
  /** The fault that is due; asked again until it was carried out. */
  readonly due: () => PlannedFault | undefined;
  readonly onInjected: (fault: InjectedFault) => void;
  /** At least this long between two faults, ms. */
  readonly gapMs: number;
  readonly signal: AbortSignal;
}

/** How long a fault waits for the phase it is aimed at; then it happens in whichever comes. */
const AIM_PATIENCE_MS = 6_000;
/** How long it waits for a victim: processes start meanwhile. */
const VICTIM_PATIENCE_MS = 60_000;

export async function injectFaults(options: InjectorOptions): Promise<void> {
  const { plan, observer, signal } = options;
  while (!signal.aborted) {
    const planned = options.due();
    if (planned === undefined) return;
    const isAimed = (status: RunStatus) =>
      isPhase(planned, status, plan) && victims(options, planned, status).length > 0;
    const isHit = await observer.until(isAimed, AIM_PATIENCE_MS);
    if (!isHit)
      await observer.until((status) => victims(options, planned, status).length > 0, VICTIM_PATIENCE_MS);
    await sleep(planned.delayMs, signal);
    if (signal.aborted) return;
    const injected = carryOut(options, planned);
    if (injected === undefined) continue;
    options.onInjected(injected);
    await sleep(options.gapMs, signal);
  }
}

/** What was aimed at sft or reward and comes later happens at any moment. */
function isPhase({ phase }: PlannedFault, status: RunStatus, plan: TrainingPlan): boolean {
  return phaseOf(status, plan) === phase || (phase === "supervised" && status.stage === "ppo");
}

function carryOut(options: InjectorOptions, planned: PlannedFault): InjectedFault | undefined {
  const { observer, processes, plan, run } = options;
  const status = observer.latest;
  if (status === undefined) return undefined;
  const candidates = victims(options, planned, status);
  if (candidates.length === 0) return undefined;
  const victim = candidates[Math.floor(planned.pick * candidates.length)];
  const registered = new Set(status.workers.map(({ pid }) => pid));
  const survivors = processes
    .active()
    .map(({ pid }) => pid)
    .filter((pid) => pid !== victim.pid && registered.has(pid));
  const atMs = Date.now();
  const isDone =
    planned.signal === "SIGKILL" ? processes.kill(victim) : processes.stop(victim, planned.stoppedMs);
  if (!isDone) return undefined;
  const { name, pid } = victim;
  const { stage, iteration, optimizerStep } = status;
  return {
    planned,
    run,
    atMs,
    name,
    pid,
    phase: phaseOf(status, plan),
    stage,
    iteration,
    optimizerStep,
    survivors,
  };
}

/**
 * Whom a fault may hit. Of several learners one that holds the state is spared: with the last one the steps since the
 * checkpoint are gone from memory and must be repeated, which is another promise than that of a single failure.
 */
function victims(
  { processes }: InjectorOptions,
  { role }: PlannedFault,
  status: RunStatus,
): RunningProcess[] {
  const running = processes.active(role);
  if (role !== "learner") return running;
  const active = new Set(running.map(({ pid }) => pid));
  const holders = status.workers.filter(
    (worker) => worker.role === "learner" && worker.state === "ready" && active.has(worker.pid),
  );
  return running.filter(({ pid }) => holders.some((holder) => holder.pid !== pid));
}
