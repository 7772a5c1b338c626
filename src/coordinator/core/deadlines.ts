import type { CoordinatorState } from "./state.js";

/** When the next Tick is due; Infinity while nothing can expire. Cheap enough to ask after every event. */
export function nextDeadlineMs(state: CoordinatorState): number {
  const { volatile, config } = state;
  if (volatile.stopped !== null) return Infinity;
  let next = Infinity;
  const consider = (deadlineMs: number | null | undefined): void => {
    if (deadlineMs !== null && deadlineMs !== undefined && deadlineMs < next) next = deadlineMs;
  };
  for (const member of volatile.members.values()) {
    consider(member.leaseExpiresAtMs);
    consider(member.heal?.deadlineMs);
  }
  for (const task of volatile.tasks.values()) {
    if (task.lease !== null) consider(task.lease.expiresAtMs);
    else if (task.holdUntilMs > volatile.nowMs) consider(task.holdUntilMs);
  }
  consider(volatile.activeStep?.deadlineMs);
  consider(volatile.regroupAtMs);
  if (volatile.noRolloutsSinceMs !== null) consider(volatile.noRolloutsSinceMs + config.waitForWorkersMs);
  if (volatile.noLearnersSinceMs !== null) consider(volatile.noLearnersSinceMs + config.waitForWorkersMs);
  return next;
}
