/**
 * Hedging of stragglers: when no task waits any more and a worker is idle, the slowest task is given to it as well.
 * The first admission of an experience wins. It cannot change a result: the second worker samples with the same policy
 * version, and the tokens of an answer depend on seed, experience id and weights alone.
 *
 * A task is slow after `hedgeFactor` times the mean duration of the tasks finished so far, once there are MIN_SAMPLES.
 */
import type { Outbox } from "./outbox.js";
import type { CoordinatorState, Member, Task } from "./state.js";
import { assign } from "./tasks.js";

/** Finished tasks before a mean means anything. */
const MIN_SAMPLES = 3;
/** Time between two looks at all tasks: there is an occasion after every event, and thousands come a second. */
const LOOK_EVERY_MS = 20;

/** Gives slow tasks, slowest first, to idle workers. */
export function hedgeStragglers(state: CoordinatorState, out: Outbox): void {
  const { volatile } = state;
  if (volatile.nowMs < volatile.nextHedgeLookMs) return;
  volatile.nextHedgeLookMs = volatile.nowMs + LOOK_EVERY_MS;
  const slow = stragglers(state).filter((task) => dueMs(state, task) <= state.volatile.nowMs);
  if (slow.length === 0) return;
  for (const task of slow.sort((a, b) => a.leases[0].startedAtMs - b.leases[0].startedAtMs)) {
    const helper = idleWorkerFor(state, task);
    if (helper === null) continue;
    state.volatile.counters.tasksHedged += 1;
    assign(state, task, helper, "hedge", out);
  }
}

/** When the next task becomes slow while a worker is idle; Infinity when that cannot happen. */
export function nextHedgeMs(state: CoordinatorState): number {
  let next = Infinity;
  for (const task of stragglers(state)) {
    const atMs = Math.max(dueMs(state, task), state.volatile.nextHedgeLookMs);
    if (atMs > state.volatile.nowMs && atMs < next && idleWorkerFor(state, task) !== null) next = atMs;
  }
  return next;
}

/** A task is done: how long its oldest holder took. */
export function noteDuration({ volatile }: CoordinatorState, task: Task): void {
  const [lease] = task.leases;
  if (task.kind !== "experience" || lease === undefined) return;
  const { taskMs } = volatile;
  taskMs.count += 1;
  taskMs.mean += (volatile.nowMs - lease.startedAtMs - taskMs.mean) / taskMs.count;
}

/** Experience tasks with one holder, if no task waits for one and somebody is free. */
function stragglers({ config, volatile }: CoordinatorState): Task[] {
  if (config.hedgeFactor === 0 || volatile.taskMs.count < MIN_SAMPLES) return [];
  if (volatile.waitingTasks.size > 0 || volatile.freeWorkers.size === 0) return [];
  return [...volatile.tasks.values()].filter(
    ({ kind, leases }) => kind === "experience" && leases.length === 1,
  );
}

const dueMs = ({ config, volatile }: CoordinatorState, task: Task): number =>
  task.leases[0].startedAtMs + config.hedgeFactor * volatile.taskMs.mean;

/** Holds nothing, has not failed the task, and samples with the policy the task is being sampled with. */
function idleWorkerFor({ volatile }: CoordinatorState, task: Task): Member | null {
  const [{ workerId, policyVersion }] = task.leases;
  for (const member of volatile.freeWorkers) {
    // Fewest tasks first: nobody after this one is idle.
    if (member.leases.size > 0) return null;
    if (member.workerId === workerId || task.failedBy.has(member.workerId)) continue;
    if (member.policyVersion === policyVersion) return member;
  }
  return null;
}
