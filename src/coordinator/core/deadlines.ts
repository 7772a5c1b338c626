import { nextHedgeMs } from "./hedging.js";
import { pauseDueMs } from "./healing.js";
import { holdsUp } from "./heals.js";
import { isHealing } from "./lifecycle.js";
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
    if (holdsUp(state, member)) consider(member.heal?.holdsUpUntilMs);
    // Past, it waits for its step or its tasks, which have deadlines of their own.
    if (member.drainUntilMs !== null && member.drainUntilMs > volatile.nowMs) consider(member.drainUntilMs);
  }
  for (const task of volatile.tasks.values()) {
    for (const lease of task.leases) consider(lease.expiresAtMs);
    if (task.leases.length === 0 && task.holdUntilMs > volatile.nowMs) consider(task.holdUntilMs);
  }
  consider(nextHedgeMs(state));
  consider(volatile.activeStep?.deadlineMs);
  consider(volatile.regroup?.untilMs);
  const pauseMs = pauseDueMs(state);
  if (pauseMs > volatile.nowMs) consider(pauseMs);
  if (volatile.noRolloutsSinceMs !== null) consider(volatile.noRolloutsSinceMs + config.waitForWorkersMs);
  if (volatile.noLearnersSinceMs !== null && !isHealing(state))
    consider(volatile.noLearnersSinceMs + config.waitForWorkersMs);
  return next;
}
