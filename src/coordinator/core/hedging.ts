/**
 * Hedging of stragglers: when no task waits any more and a worker is idle, the slowest task is given to it as well.
 * The first admission of an experience wins. It cannot change a result: the second worker samples with the same policy
 * version, and the tokens of an answer depend on seed, experience id and weights alone.
 *
 * A task is slow after `hedgeFactor` times the mean duration of the tasks finished so far, once there are MIN_SAMPLES.
 */
import { OrderedList } from "./ordered-list.js";
import type { Outbox } from "./outbox.js";
import { failedBy } from "./poison.js";
import type { CoordinatorState, Member, Task } from "./state.js";
import { assign } from "./tasks.js";

/** Finished tasks before a mean means anything. */
const MIN_SAMPLES = 3;
/** Time between two looks: there is an occasion after every event, and thousands come a second. */
const LOOK_EVERY_MS = 20;

/** Experience tasks with one holder, who got it first in front. */
export class SinglyHeld {
  private readonly tasks = new OrderedList<Task>(
    (a, b) => a.leases[0].startedAtMs - b.leases[0].startedAtMs || a.order - b.order,
  );

  /** To be called before its leases change, and `add` after it. */
  delete(task: Task): void {
    if (isSinglyHeld(task)) this.tasks.delete(task);
  }

  add(task: Task): void {
    if (isSinglyHeld(task)) this.tasks.add(task);
  }

  [Symbol.iterator](): Iterator<Task> {
    return this.tasks[Symbol.iterator]();
  }
}

const isSinglyHeld = ({ kind, leases }: Task): boolean => kind === "experience" && leases.length === 1;

/** Gives slow tasks, slowest first, to idle workers. */
export function hedgeStragglers(state: CoordinatorState, out: Outbox): void {
  const { volatile } = state;
  if (volatile.nowMs < volatile.nextHedgeLookMs || !mayHedge(state)) return;
  volatile.nextHedgeLookMs = volatile.nowMs + LOOK_EVERY_MS;
  const slow: Task[] = [];
  for (const task of volatile.singlyHeld) {
    if (dueMs(state, task) > volatile.nowMs) break;
    slow.push(task);
  }
  for (const task of slow) {
    const helper = idleWorkerFor(state, task);
    if (helper === null) continue;
    volatile.counters.tasksHedged += 1;
    assign(state, task, helper, "hedge", out);
  }
}

/** When the next task becomes slow while a worker is idle; Infinity when that cannot happen. */
export function nextHedgeMs(state: CoordinatorState): number {
  const { volatile } = state;
  if (!mayHedge(state)) return Infinity;
  for (const task of volatile.singlyHeld) {
    const atMs = Math.max(dueMs(state, task), volatile.nextHedgeLookMs);
    if (atMs > volatile.nowMs && idleWorkerFor(state, task) !== null) return atMs;
  }
  return Infinity;
}

/** A task is done: how long its oldest holder took. */
export function noteDuration({ volatile }: CoordinatorState, task: Task): void {
  const [lease] = task.leases;
  if (task.kind !== "experience" || lease === undefined) return;
  const { taskMs } = volatile;
  taskMs.count += 1;
  taskMs.mean += (volatile.nowMs - lease.startedAtMs - taskMs.mean) / taskMs.count;
}

/** No task waits for a worker, somebody is idle, and there is a mean to compare with. */
function mayHedge({ config, volatile }: CoordinatorState): boolean {
  if (config.hedgeFactor === 0 || volatile.taskMs.count < MIN_SAMPLES) return false;
  return volatile.waitingTasks.size === 0 && volatile.freeWorkers.hasIdle;
}

const dueMs = ({ config, volatile }: CoordinatorState, task: Task): number =>
  task.leases[0].startedAtMs + config.hedgeFactor * volatile.taskMs.mean;

/** Holds nothing, has not failed the task, and samples with the policy the task is being sampled with. */
function idleWorkerFor({ volatile }: CoordinatorState, task: Task): Member | null {
  const [{ workerId, policyVersion }] = task.leases;
  const failed = failedBy(task);
  for (const member of volatile.freeWorkers.idle(policyVersion))
    if (member.workerId !== workerId && !failed.has(member.workerId)) return member;
  return null;
}
