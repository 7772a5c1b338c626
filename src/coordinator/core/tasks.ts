/**
 * Rollout tasks and their leases. Execution is at least once; what happens at most once is admission (ledger.ts). A task
 * exists while an id of it is open, so completing the last id from anywhere ends it.
 *
 * A worker works on its tasks in the order it got them: the oldest has `taskTimeoutMs` without progress, those behind it
 * wait in the worker for as long as it takes.
 */
import type { ExperienceId } from "../../rl/types.js";
import type { Redelivery, TaskKind } from "./effects.js";
import type { WorkerHeartbeat } from "./events.js";
import { compareExperienceIds } from "./experience-id.js";
import { noteDuration } from "./hedging.js";
import type { Outbox } from "./outbox.js";
import { failAttempt } from "./poison.js";
import type { CoordinatorState, Member, Task, TaskLease } from "./state.js";

/** Attempts of an epoch are numbered from a multiple of it: a late answer is never taken for that of another worker. */
const EPOCH_ATTEMPTS = 10_000;

export function addTask(
  state: CoordinatorState,
  taskId: string,
  kind: TaskKind,
  owner: string | number,
  policyVersion: number,
  openIds: readonly ExperienceId[],
): void {
  const { volatile } = state;
  const task: Task = {
    taskId,
    order: volatile.nextTaskOrder++,
    kind,
    owner,
    policyVersion,
    openIds: new Set(openIds),
    attempts: (state.durable.epoch - 1) * EPOCH_ATTEMPTS,
    failures: 0,
    failedBy: new Set(),
    alone: new Map(),
    assigned: new Map(),
    leases: [],
    lost: null,
    isIsolated: false,
    holdUntilMs: 0,
  };
  volatile.tasks.set(taskId, task);
  volatile.waitingTasks.add(task);
  volatile.openTasks.set(owner, (volatile.openTasks.get(owner) ?? 0) + 1);
}

/**
 * Oldest version that may work on the task. Experiences: no more than `maxStalenessVersions` behind the policy of now,
 * nor (a collection asked for ahead) behind the one that will be trained when they are used.
 */
export function oldestPolicyFor({ durable, config }: CoordinatorState, task: Task): number {
  if (task.kind === "evaluation") return task.policyVersion;
  return Math.max(task.policyVersion, durable.policyVersion - config.maxStalenessVersions);
}

/** Whether an older collection is still to be used up, so that waiting makes room for this iteration's experiences. */
export function isAhead({ durable }: CoordinatorState, iteration: number): boolean {
  for (const open of durable.collections.keys()) if (open < iteration) return true;
  return false;
}

export function assign(
  state: CoordinatorState,
  task: Task,
  member: Member,
  redelivery: Redelivery | null,
  out: Outbox,
): void {
  const { nowMs, freeWorkers, waitingTasks, heldBack, singlyHeld } = state.volatile;
  const { taskId, kind } = task;
  const { workerId, incarnation, policyVersion } = member;
  const attempt = ++task.attempts;
  const openIds = [...task.openIds];
  const experienceIds = task.isIsolated ? openIds.slice(0, 1) : openIds;
  const lease: TaskLease = {
    workerId,
    incarnation,
    attempt,
    policyVersion,
    experienceIds,
    isAlone: task.isIsolated,
    startedAtMs: nowMs,
    expiresAtMs: Infinity,
    progress: 0,
  };
  task.assigned.set(attempt, lease);
  if (task.leases.length === 0) {
    waitingTasks.delete(task);
    heldBack.delete(task);
    if (kind === "experience") state.volatile.leasedExperiences += task.openIds.size;
  }
  singlyHeld.delete(task);
  task.leases.push(lease);
  singlyHeld.add(task);
  if (member.leases.size === 0) startClock(state, task, lease);
  member.leases.add(taskId);
  member.isReserved = lease.isAlone;
  freeWorkers.update(member);
  out.send({
    type: "AssignTask",
    workerId,
    incarnation,
    kind,
    taskId,
    attempt,
    policyVersion,
    experienceIds,
    redelivery,
  });
}

export const leaseOf = (task: Task | undefined, incarnation: number): TaskLease | undefined =>
  task?.leases.find((lease) => lease.incarnation === incarnation);

/** Work advanced: the lease of every task whose counter grew starts anew. */
export function extendLeases(state: CoordinatorState, event: WorkerHeartbeat): void {
  for (const { taskId, attempt, tokens } of event.progress ?? []) {
    const task = state.volatile.tasks.get(taskId);
    const lease = leaseOf(task, event.incarnation);
    if (task === undefined || lease?.attempt !== attempt || tokens <= lease.progress) continue;
    lease.progress = tokens;
    startClock(state, task, lease);
  }
}

/** The holder works on it from now on, or showed that it does. */
export function startClock({ volatile, config }: CoordinatorState, task: Task, lease: TaskLease): void {
  lease.expiresAtMs = volatile.nowMs + config.taskTimeoutMs;
  volatile.running.delete(lease);
  volatile.running.set(lease, task);
}

/** The holder no longer has what it worked on: its next task is at work. */
function startNext(state: CoordinatorState, holder: Member): void {
  for (const taskId of holder.leases) {
    const task = state.volatile.tasks.get(taskId);
    const lease = leaseOf(task, holder.incarnation);
    if (task !== undefined && lease !== undefined) startClock(state, task, lease);
    return;
  }
}

/** Tasks whose holder made no progress in time. */
export function expireLeases(state: CoordinatorState, out: Outbox): void {
  const { volatile } = state;
  for (const [lease, task] of volatile.running) {
    if (volatile.nowMs < lease.expiresAtMs) break;
    failAttempt(state, task, lease, "timeout", true, out);
  }
  for (const task of volatile.heldBack) {
    if (volatile.nowMs < task.holdUntilMs) break;
    volatile.heldBack.delete(task);
  }
}

/** The id is admitted or given up. */
export function resolveId({ volatile }: CoordinatorState, task: Task, id: ExperienceId): void {
  if (!task.openIds.delete(id)) return;
  if (task.leases.length === 0) volatile.waitingTasks.resolve(task);
  else if (task.kind === "experience") volatile.leasedExperiences -= 1;
}

/** Takes the lease away; the holder is told unless it is the one who gave the task back. */
export function releaseLease(
  state: CoordinatorState,
  task: Task,
  lease: TaskLease,
  cause: Redelivery,
  shouldTell: boolean,
  out: Outbox,
): void {
  const { volatile } = state;
  volatile.singlyHeld.delete(task);
  task.leases.splice(task.leases.indexOf(lease), 1);
  volatile.singlyHeld.add(task);
  volatile.running.delete(lease);
  task.lost = cause;
  if (task.leases.length === 0) {
    volatile.waitingTasks.add(task);
    if (task.kind === "experience") volatile.leasedExperiences -= task.openIds.size;
  }
  const { workerId, incarnation, attempt } = lease;
  const { taskId } = task;
  const holder = volatile.members.get(workerId);
  if (holder?.incarnation !== incarnation) return;
  const [atWork] = holder.leases;
  holder.leases.delete(taskId);
  if (lease.isAlone) holder.isReserved = false;
  if (atWork === taskId) startNext(state, holder);
  volatile.freeWorkers.update(holder);
  if (shouldTell) out.send({ type: "CancelTask", workerId, incarnation, taskId, attempt });
}

/** Gives back everything a departed member held. The tasks it was working on count the attempt when `isBlamed`. */
export function releaseMemberLeases(
  state: CoordinatorState,
  member: Member,
  cause: Redelivery,
  isBlamed: boolean,
  out: Outbox,
): void {
  let isOldest = true;
  for (const taskId of [...member.leases]) {
    const task = state.volatile.tasks.get(taskId);
    const lease = leaseOf(task, member.incarnation);
    if (task === undefined || lease === undefined) continue;
    // Tasks still queued inside the worker cannot have killed it: only the one at work, or any that had begun.
    if (isBlamed && (isOldest || lease.progress > 0)) failAttempt(state, task, lease, cause, false, out);
    else {
      releaseLease(state, task, lease, cause, false, out);
      state.volatile.counters.tasksReassigned += 1;
    }
    isOldest = false;
  }
}

/** Nothing of the task is left to do (or will be): removes it and reports whatever that completes. */
export function endTask(state: CoordinatorState, task: Task, hasFailed: boolean, out: Outbox): void {
  if (!hasFailed) noteDuration(state, task);
  for (const lease of [...task.leases]) releaseLease(state, task, lease, "drained", true, out);
  const { tasks, waitingTasks, openTasks, heldBack } = state.volatile;
  tasks.delete(task.taskId);
  waitingTasks.delete(task);
  heldBack.delete(task);
  const left = openTasks.get(task.owner)! - 1;
  if (left > 0) openTasks.set(task.owner, left);
  else {
    openTasks.delete(task.owner);
    waitingTasks.forget(task.owner);
  }
  if (task.kind === "experience") {
    reportCollection(state, task.owner as number, out);
    return;
  }
  const evaluation = state.volatile.evaluations.get(task.owner as string);
  if (evaluation === undefined) return;
  evaluation.openTaskIds.delete(task.taskId);
  if (evaluation.openTaskIds.size > 0) return;
  const { evaluationId, givenUp } = evaluation;
  out.send({ type: "EvaluationCompleted", evaluationId, givenUp: [...givenUp] });
}

/** Tells the train loop, once per request, that every id of the collection is resolved. */
export function reportCollection(state: CoordinatorState, iteration: number, out: Outbox): void {
  const { volatile, durable } = state;
  const collection = durable.collections.get(iteration);
  if (collection === undefined || !volatile.awaitedCollections.has(iteration)) return;
  if (volatile.openTasks.has(iteration)) return;
  volatile.awaitedCollections.delete(iteration);
  const experienceIds: ExperienceId[] = [];
  let abandoned = 0;
  for (const task of collection.tasks) {
    for (const id of task.experienceIds) {
      const entry = durable.experiences.get(id)!;
      if (entry.status === "abandoned") abandoned += 1;
      // What a skipped step dropped stays in: the minibatches of an iteration are cut from one and the same list.
      else if (entry.status !== "dropped" || entry.listings > 0) experienceIds.push(id);
    }
  }
  out.send({
    type: "CollectCompleted",
    iteration,
    experienceIds: experienceIds.sort(compareExperienceIds),
    abandoned,
    policyVersion: durable.policyVersion,
  });
}
