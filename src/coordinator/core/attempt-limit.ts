import { LONGEST_TIMER_MS } from "../../shared/abort.js";
import type { CoordinatorState } from "./state.js";

/**
 * Most times its limit that anything asked of learners is given. Doubling reaches it at the fourth attempt, so learners
 * that are alive and never vote end the run after `1 + 2 + 4 + 8 · (maxStepAttempts − 3)` step timeouts.
 */
export const MAX_PATIENCE = 8;

/** How long one attempt at a step, at a round's training or at its sum may take: what a learner's timer can be set for. */
export function attemptLimitMs({ config, volatile }: CoordinatorState, isTraining: boolean): number {
  const limitMs = isTraining ? config.round?.timeoutMs : undefined;
  return Math.min((limitMs ?? config.stepTimeoutMs) * volatile.stepPatience, LONGEST_TIMER_MS);
}
