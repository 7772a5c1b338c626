import { nextHedgeMs } from "./hedging.js";
import { pauseDueMs } from "./healing.js";
import { holdsUp } from "./heals.js";
import { isHealing } from "./lifecycle.js";
import type { CoordinatorState } from "./state.js";

/** When the next Tick is due; Infinity while nothing can expire. Looks at the learners, and at the first of all else. */
export function nextDeadlineMs(state: CoordinatorState): number {
  const { volatile, config } = state;
  if (volatile.stopped !== null) return Infinity;
  let next = Infinity;
  const consider = (deadlineMs: number | null | undefined): void => {
    if (deadlineMs !== null && deadlineMs !== undefined && deadlineMs < next) next = deadlineMs;
  };
  // Past, it waits for its step or its tasks, which have deadlines of their own.
  for (const { drainUntilMs } of volatile.draining)
    if (drainUntilMs !== null && drainUntilMs > volatile.nowMs) consider(drainUntilMs);
  for (const { leaseExpiresAtMs } of volatile.silent) {
    consider(leaseExpiresAtMs);
    break;
  }
  for (const learner of volatile.learners) {
    consider(learner.heal?.deadlineMs);
    if (holdsUp(state, learner)) consider(learner.heal?.holdsUpUntilMs);
  }
  for (const { expiresAtMs } of volatile.running.keys()) {
    consider(expiresAtMs);
    break;
  }
  for (const { holdUntilMs } of volatile.heldBack) {
    if (holdUntilMs <= volatile.nowMs) continue;
    consider(holdUntilMs);
    break;
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
