/**
 * Rollout tasks: leases, redelivery, poison. Execution is at least once; what happens at most once is admission
 * (ledger.ts). A task exists while an id of it is open, so completing the last id from anywhere ends it.
 */
import type { ExperienceId } from "../../rl/types.js";
import type { TaskKind } from "./effects.js";
import type { WorkerHeartbeat } from "./events.js";
import { compareExperienceIds } from "./experience-id.js";
import type { Outbox } from "./outbox.js";
import type { CoordinatorState, Member, Task } from "./state.js";

export function addTask(
  state: CoordinatorState,
  taskId: string,
  kind: TaskKind,
  owner: string | number,
  policyVersion: number,
  openIds: readonly ExperienceId[],
): void {
  state.volatile.tasks.set(taskId, {
    taskId,
    kind,
    owner,
    policyVersion,
    openIds: new Set(openIds),
    attempts: 0,
    failures: 0,
    failedBy: new Set(),
    assignees: new Map(),
    lease: null,
    holdUntilMs: 0,
  });
}

/** Hands out what can be handed out: oldest task first, to a worker that did not fail it while there is one. */
export function dispatchTasks(state: CoordinatorState, out: Outbox): void {
  const { members, tasks } = state.volatile;
  if (tasks.size === 0) return;
  let free = 0;
  for (const member of members.values()) if (hasCredit(member)) free += 1;
  if (free === 0) return;
  for (const task of tasks.values()) {
    if (task.lease !== null || task.policyVersion > state.durable.policyVersion) continue;
    if (task.kind === "experience" && !hasRoomFor(state, task)) continue;
    const member = chooseWorker(state, task, out);
    if (member === null) continue;
    assign(state, task, member, out);
    if (!hasCredit(member) && --free === 0) return;
  }
}

const hasCredit = (member: Member): boolean =>
  member.role === "rollout" && member.state === "ready" && member.leases.size < member.credits;

/** Fewest leases first, then join order; null when nobody may take it now. */
function chooseWorker(state: CoordinatorState, task: Task, out: Outbox): Member | null {
  let best: Member | null = null;
  let isBestFresh = false;
  let hasFreshElsewhere = false;
  for (const member of state.volatile.members.values()) {
    if (member.role !== "rollout" || member.state !== "ready") continue;
    const isFresh = !task.failedBy.has(member.workerId);
    if (!hasCredit(member) || !holdsPolicyFor(state, member, task, out)) {
      hasFreshElsewhere ||= isFresh;
      continue;
    }
    if (best !== null && isBestFresh && !isFresh) continue;
    if (best === null || (isFresh && !isBestFresh) || member.leases.size < best.leases.size) {
      best = member;
      isBestFresh = isFresh;
    }
  }
  // A worker that failed the task waits a little for one that did not.
  if (best !== null && !isBestFresh && hasFreshElsewhere && state.volatile.nowMs < task.holdUntilMs)
    return null;
  return best;
}

function holdsPolicyFor(state: CoordinatorState, member: Member, task: Task, out: Outbox): boolean {
  const { durable, config } = state;
  const oldest =
    task.kind === "evaluation"
      ? task.policyVersion
      : Math.max(0, durable.policyVersion - config.maxStalenessVersions);
  if (member.policyVersion >= oldest && member.policyVersion <= durable.policyVersion) return true;
  if (member.refreshedTo !== durable.policyVersion) {
    member.refreshedTo = durable.policyVersion;
    out.send({
      type: "RefreshPolicy",
      workerId: member.workerId,
      incarnation: member.incarnation,
      policyVersion: durable.policyVersion,
    });
  }
  return false;
}

/** Whether the bytes it may bring fit; always when nothing in the buffer can drain, so that waiting never deadlocks. */
function hasRoomFor(state: CoordinatorState, task: Task): boolean {
  const { durable, volatile, config } = state;
  if (durable.counts.buffered === 0) return true;
  let outstanding = task.openIds.size;
  for (const other of volatile.tasks.values()) {
    if (other.lease !== null && other.kind === "experience") outstanding += other.openIds.size;
  }
  const expected = durable.counts.bufferedBytes + outstanding * volatile.largestExperienceBytes;
  return expected <= config.capacityBytes || !canDrain(state);
}

/** Whether the buffer holds experiences of a complete collection: those the train loop can use up. */
export function canDrain(state: CoordinatorState): boolean {
  const incomplete = new Set<string | number>();
  for (const task of state.volatile.tasks.values()) incomplete.add(task.owner);
  for (const entry of state.durable.experiences.values()) {
    if (entry.status === "buffered" && !incomplete.has(entry.iteration)) return true;
  }
  return false;
}

function assign(state: CoordinatorState, task: Task, member: Member, out: Outbox): void {
  task.attempts += 1;
  task.assignees.set(task.attempts, member.workerId);
  task.lease = {
    workerId: member.workerId,
    incarnation: member.incarnation,
    attempt: task.attempts,
    policyVersion: member.policyVersion,
    expiresAtMs: state.volatile.nowMs + state.config.taskTimeoutMs,
    progress: 0,
  };
  member.leases.add(task.taskId);
  out.send({
    type: "AssignTask",
    workerId: member.workerId,
    incarnation: member.incarnation,
    kind: task.kind,
    taskId: task.taskId,
    attempt: task.attempts,
    policyVersion: member.policyVersion,
    experienceIds: [...task.openIds],
  });
}

/** Work advanced: the lease of every task whose counter grew starts anew. */
export function extendLeases(state: CoordinatorState, event: WorkerHeartbeat): void {
  for (const { taskId, attempt, tokens } of event.progress ?? []) {
    const lease = state.volatile.tasks.get(taskId)?.lease;
    if (lease?.incarnation !== event.incarnation || lease.attempt !== attempt || tokens <= lease.progress)
      continue;
    lease.progress = tokens;
    lease.expiresAtMs = state.volatile.nowMs + state.config.taskTimeoutMs;
  }
}

/** Takes the lease away; the holder is told unless it is the one who gave the task back. */
export function releaseLease(state: CoordinatorState, task: Task, shouldTell: boolean, out: Outbox): void {
  const lease = task.lease;
  if (lease === null) return;
  task.lease = null;
  const holder = state.volatile.members.get(lease.workerId);
  if (holder?.incarnation !== lease.incarnation) return;
  holder.leases.delete(task.taskId);
  if (!shouldTell) return;
  out.send({
    type: "CancelTask",
    workerId: lease.workerId,
    incarnation: lease.incarnation,
    taskId: task.taskId,
    attempt: lease.attempt,
  });
}

/** The attempt failed and counts; after `maxTaskAttempts` of them what is left of the task is given up. */
export function failAttempt(state: CoordinatorState, task: Task, shouldTell: boolean, out: Outbox): void {
  const { volatile, config } = state;
  const workerId = task.lease?.workerId;
  releaseLease(state, task, shouldTell, out);
  if (workerId !== undefined) task.failedBy.add(workerId);
  task.failures += 1;
  task.holdUntilMs = volatile.nowMs + config.leaseTtlMs;
  volatile.counters.tasksReassigned += 1;
  if (task.failures < config.maxTaskAttempts) return;
  if (task.kind === "experience") {
    out.record({ type: "ExperiencesAbandoned", experienceIds: [...task.openIds], reason: "poison" });
    task.openIds.clear();
  }
  endTask(state, task, true, out);
}

/** Gives back everything a departed member held. The tasks it was working on count the attempt when `isBlamed`. */
export function releaseMemberLeases(
  state: CoordinatorState,
  member: Member,
  isBlamed: boolean,
  out: Outbox,
): void {
  let isOldest = true;
  for (const taskId of [...member.leases]) {
    const task = state.volatile.tasks.get(taskId);
    if (task === undefined || task.lease?.incarnation !== member.incarnation) continue;
    // Tasks still queued inside the worker cannot have killed it: only the one at work, or any that had begun.
    if (isBlamed && (isOldest || task.lease.progress > 0)) failAttempt(state, task, false, out);
    else {
      releaseLease(state, task, false, out);
      state.volatile.counters.tasksReassigned += 1;
    }
    isOldest = false;
  }
}

/** Nothing of the task is left to do (or will be): removes it and reports whatever that completes. */
export function endTask(state: CoordinatorState, task: Task, hasFailed: boolean, out: Outbox): void {
  releaseLease(state, task, true, out);
  state.volatile.tasks.delete(task.taskId);
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
  for (const task of volatile.tasks.values()) if (task.owner === iteration) return;
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
