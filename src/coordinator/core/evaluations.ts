/** Evaluation tasks: dispatched like experience tasks, completed once each, never part of the ledger. */
import type { EvaluationReceived, EvaluationRequested } from "./events.js";
import type { Outbox } from "./outbox.js";
import type { CoordinatorState, Member } from "./state.js";
import { addTask, endTask } from "./tasks.js";

/** Starts the evaluation; repeating one that is under way changes nothing. */
export function requestEvaluation(state: CoordinatorState, event: EvaluationRequested, out: Outbox): void {
  const { evaluations } = state.volatile;
  const { evaluationId, policyVersion, taskIds } = event;
  if (evaluations.get(evaluationId)?.openTaskIds.size) return;
  evaluations.set(evaluationId, {
    evaluationId,
    taskIds: new Set(taskIds),
    openTaskIds: new Set(taskIds),
    failedTaskIds: [],
  });
  for (const taskId of taskIds) addTask(state, taskId, "evaluation", evaluationId, policyVersion, []);
  if (taskIds.length === 0) out.send({ type: "EvaluationCompleted", evaluationId, failedTaskIds: [] });
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
  if (member === null || task.assignees.get(attempt) !== workerId) {
    out.send({ ...answer, outcome: "fenced" });
    return;
  }
  out.send({ ...answer, outcome: "accepted" });
  endTask(state, task, false, out);
}
