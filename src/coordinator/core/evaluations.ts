/** Evaluation tasks: dispatched like experience tasks, every answer accepted once, never part of the ledger. */
import type { EvaluationReceived, EvaluationRequested } from "./events.js";
import type { Outbox } from "./outbox.js";
import type { CoordinatorState, Member } from "./state.js";
import { addTask, endTask, releaseLease, resolveId } from "./tasks.js";

/** Starts the evaluation; repeating one that is under way changes nothing. */
export function requestEvaluation(state: CoordinatorState, event: EvaluationRequested, out: Outbox): void {
  const { evaluations } = state.volatile;
  const { evaluationId, policyVersion, tasks } = event;
  if (evaluations.get(evaluationId)?.openTaskIds.size) return;
  const taskIds = tasks.map(({ taskId }) => taskId);
  evaluations.set(evaluationId, {
    evaluationId,
    taskIds: new Set(taskIds),
    openTaskIds: new Set(taskIds),
    givenUp: [],
  });
  for (const { taskId, experienceIds } of tasks)
    addTask(state, taskId, "evaluation", evaluationId, policyVersion, experienceIds);
  if (tasks.length === 0) out.send({ type: "EvaluationCompleted", evaluationId, givenUp: [] });
}

/** A result counts once, and only from a live worker that was given the task. */
export function receiveEvaluation(
  state: CoordinatorState,
  member: Member | null,
  event: EvaluationReceived,
  out: Outbox,
): void {
  const { volatile } = state;
  const { workerId, incarnation, taskId, attempt } = event;
  const answer = { type: "AckEvaluation", workerId, incarnation, taskId, attempt } as const;
  const task = volatile.tasks.get(taskId);
  if (task?.kind !== "evaluation") {
    const isKnown = [...volatile.evaluations.values()].some((evaluation) => evaluation.taskIds.has(taskId));
    out.send({ ...answer, outcome: isKnown ? "duplicate" : "unknown" });
    return;
  }
  const assigned = task.assigned.get(attempt);
  if (member === null || assigned?.workerId !== workerId) {
    out.send({ ...answer, outcome: "fenced" });
    return;
  }
  out.send({ ...answer, outcome: "accepted" });
  for (const id of assigned.experienceIds) resolveId(state, task, id);
  if (task.openIds.size === 0) endTask(state, task, false, out);
  else if (task.leases.includes(assigned)) releaseLease(state, task, assigned, "isolated", false, out);
}
