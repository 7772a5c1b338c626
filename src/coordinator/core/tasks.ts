/**
 * Rollout tasks: leases, redelivery, poison. Execution is at least once; what happens at most once is admission
 * (ledger.ts). A task exists while an id of it is open, so completing the last id from anywhere ends it.
 *
 * Poison: a task that failed `maxTaskAttempts` times holds something that fails on any worker. Its experiences are then
 * handed out one at a time, and whichever fails alone is given up: the others of the task are not lost with it.
 */
import type { ExperienceId } from "../../rl/types.js";
import type { Redelivery, TaskKind } from "./effects.js";
import type { WorkerHeartbeat } from "./events.js";
import { compareExperienceIds } from "./experience-id.js";
import { hedgeStragglers, noteDuration } from "./hedging.js";
import type { Outbox } from "./outbox.js";
import type { CoordinatorState, Member, Task, TaskLease } from "./state.js";

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
    attempts: 0,
    failures: 0,
    failedBy: new Set(),
    assignees: new Map(),
    leases: [],
    lost: null,
    isIsolated: false,
    holdUntilMs: 0,
  };
  volatile.tasks.set(taskId, task);
  volatile.waitingTasks.add(task);
  volatile.openTasks.set(owner, (volatile.openTasks.get(owner) ?? 0) + 1);
}

/** Hands out what can be handed out: oldest task first, to a worker that did not fail it while there is one. */
export function dispatchTasks(state: CoordinatorState, out: Outbox): void {
  const { freeWorkers, waitingTasks } = state.volatile;
  if (waitingTasks.size === 0) return hedgeStragglers(state, out);
  if (freeWorkers.size === 0) return;
  /** Nobody who is free holds this version or a newer one. */
  let unheld = Infinity;
  for (const task of waitingTasks) {
    if (task.policyVersion > state.durable.policyVersion) continue;
    const oldest = oldestPolicyFor(state, task);
    if (oldest >= unheld) continue;
    if (task.kind === "experience" && !hasRoomFor(state, task)) continue;
    const choice = chooseWorker(state, task, oldest, out);
    if (choice === "unheld") unheld = oldest;
    if (typeof choice === "string") continue;
    assign(state, task, choice, task.lost, out);
    if (freeWorkers.size === 0) return;
  }
  hedgeStragglers(state, out);
}

/** Fewest leases first; "unheld" when nobody free holds the policy, "later" when it waits for somebody else. */
function chooseWorker(
  state: CoordinatorState,
  task: Task,
  oldest: number,
  out: Outbox,
): Member | "unheld" | "later" {
  let best: Member | undefined;
  for (const member of state.volatile.freeWorkers) {
    if (!holdsPolicyFrom(state, member, oldest, out)) continue;
    if (!task.failedBy.has(member.workerId)) return member;
    best ??= member;
  }
  if (best === undefined) return "unheld";
  // A worker that failed the task waits a little for one that did not.
  return state.volatile.nowMs < task.holdUntilMs && hasFreshWorker(state, task) ? "later" : best;
}

/** Somebody who did not fail the task is here, and only busy or behind. */
function hasFreshWorker({ volatile }: CoordinatorState, task: Task): boolean {
  for (const { role, state, workerId } of volatile.members.values())
    if (role === "rollout" && state === "ready" && !task.failedBy.has(workerId)) return true;
  return false;
}

function holdsPolicyFrom(state: CoordinatorState, member: Member, oldest: number, out: Outbox): boolean {
  const { durable } = state;
  // Whoever may still sample from an older policy is told of the newest as well: fresher experience is better.
  if (member.policyVersion !== durable.policyVersion && member.refreshedTo !== durable.policyVersion) {
    member.refreshedTo = durable.policyVersion;
    out.send({
      type: "RefreshPolicy",
      workerId: member.workerId,
      incarnation: member.incarnation,
      policyVersion: durable.policyVersion,
    });
  }
  return member.policyVersion >= oldest && member.policyVersion <= durable.policyVersion;
}

/**
 * Oldest version that may work on the task. Experiences: no more than `maxStalenessVersions` behind the policy of now,
 * nor (a collection asked for ahead) behind the one that will be trained when they are used.
 */
export function oldestPolicyFor({ durable, config }: CoordinatorState, task: Task): number {
  if (task.kind === "evaluation") return task.policyVersion;
  return Math.max(task.policyVersion, durable.policyVersion - config.maxStalenessVersions);
}

/**
 * Whether the bytes it may bring fit, beside those of the tasks at work and of every older collection. A task of the
 * oldest open collection never waits: nothing leaves the buffer before that one is complete.
 */
function hasRoomFor(state: CoordinatorState, task: Task): boolean {
  const { durable, volatile, config } = state;
  if (!isAhead(state, task.owner as number)) return true;
  const { bufferedBytes, open } = durable.counts;
  const bytesOf = (experiences: number): number => experiences * volatile.largestExperienceBytes;
  if (bufferedBytes + bytesOf(open) <= config.capacityBytes) return true; // even all that is asked for fits
  let older = 0;
  for (const other of volatile.waitingTasks) {
    if (other.kind === "experience" && other.owner < task.owner) older += other.openIds.size;
  }
  const expected = bufferedBytes + bytesOf(task.openIds.size + volatile.leasedExperiences + older);
  return expected <= config.capacityBytes;
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
  const { nowMs, freeWorkers, waitingTasks } = state.volatile;
  const { taskId, kind } = task;
  const { workerId, incarnation, policyVersion } = member;
  const attempt = ++task.attempts;
  const openIds = [...task.openIds];
  const experienceIds = task.isIsolated ? openIds.slice(0, 1) : openIds;
  task.assignees.set(attempt, workerId);
  task.leases.push({
    workerId,
    incarnation,
    attempt,
    policyVersion,
    experienceIds,
    startedAtMs: nowMs,
    expiresAtMs: nowMs + state.config.taskTimeoutMs,
    progress: 0,
  });
  if (task.leases.length === 1) {
    waitingTasks.delete(task);
    if (kind === "experience") state.volatile.leasedExperiences += task.openIds.size;
  }
  member.leases.add(taskId);
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
    const lease = leaseOf(state.volatile.tasks.get(taskId), event.incarnation);
    if (lease?.attempt !== attempt || tokens <= lease.progress) continue;
    lease.progress = tokens;
    lease.expiresAtMs = state.volatile.nowMs + state.config.taskTimeoutMs;
  }
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
  task.leases.splice(task.leases.indexOf(lease), 1);
  task.lost = cause;
  if (task.leases.length === 0) {
    volatile.waitingTasks.giveBack(task);
    if (task.kind === "experience") volatile.leasedExperiences -= task.openIds.size;
  }
  const { workerId, incarnation, attempt } = lease;
  const { taskId } = task;
  const holder = volatile.members.get(workerId);
  if (holder?.incarnation !== incarnation) return;
  holder.leases.delete(taskId);
  volatile.freeWorkers.update(holder);
  if (shouldTell) out.send({ type: "CancelTask", workerId, incarnation, taskId, attempt });
}

/** The attempt is over. It failed, and counts, unless nothing it was asked for is left open. */
export function failAttempt(
  state: CoordinatorState,
  task: Task,
  lease: TaskLease,
  cause: Redelivery,
  shouldTell: boolean,
  out: Outbox,
): void {
  const { volatile, config } = state;
  const open = lease.experienceIds.filter((id) => task.openIds.has(id));
  if (task.kind === "experience" && open.length === 0)
    return releaseLease(state, task, lease, "isolated", shouldTell, out);
  releaseLease(state, task, lease, cause, shouldTell, out);
  task.failedBy.add(lease.workerId);
  task.failures += 1;
  task.holdUntilMs = volatile.nowMs + config.leaseTtlMs;
  volatile.counters.tasksReassigned += 1;
  if (task.failures < config.maxTaskAttempts) return;
  if (task.kind === "evaluation") return endTask(state, task, true, out);
  if (open.length > 1) {
    task.isIsolated = true;
    return;
  }
  out.record({ type: "ExperiencesAbandoned", experienceIds: open, reason: "poison" });
  if (task.openIds.delete(open[0]) && task.leases.length > 0) volatile.leasedExperiences -= 1;
  if (task.openIds.size === 0) endTask(state, task, true, out);
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
  const { tasks, waitingTasks, openTasks } = state.volatile;
  tasks.delete(task.taskId);
  waitingTasks.delete(task);
  const left = openTasks.get(task.owner)! - 1;
  if (left > 0) openTasks.set(task.owner, left);
  else openTasks.delete(task.owner);
  if (task.kind === "experience") {
    reportCollection(state, task.owner as number, out);
    return;
  }
  const evaluation = state.volatile.evaluations.get(task.owner as string);
  if (evaluation === undefined) return;
  evaluation.openTaskIds.delete(task.taskId);
  if (hasFailed) evaluation.failedTaskIds.push(task.taskId);
  if (evaluation.openTaskIds.size > 0) return;
  out.send({
    type: "EvaluationCompleted",
    evaluationId: evaluation.evaluationId,
    failedTaskIds: [...evaluation.failedTaskIds],
  });
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
