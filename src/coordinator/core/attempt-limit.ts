import type { CoordinatorState } from "./state.js";

/** How long one attempt at a step, at a round's training or at its sum may take. */
export function attemptLimitMs({ config, volatile }: CoordinatorState, isTraining: boolean): number {
  const limitMs = isTraining ? config.round?.timeoutMs : undefined;
  return (limitMs ?? config.stepTimeoutMs) * volatile.stepPatience;
}
