/** The core's settings in a simulated run: real proportions, shorter times. */
import { DEFAULT_CORE_CONFIG, type CoreConfig } from "../coordinator/core/index.js";
import type { Scenario } from "./scenario.js";

const STEP_TIMEOUT_MS = 900;
/** Most step timeouts that one attempt is given. */
const STEP_PATIENCE = 8;

export function coreConfig(scenario: Scenario): CoreConfig {
  return {
    leaseTtlMs: 1_000,
    taskTimeoutMs: 1_500,
    stepTimeoutMs: STEP_TIMEOUT_MS,
    round: scenario.rounds && { timeoutMs: STEP_TIMEOUT_MS * scenario.rounds.every },
    healTimeoutMs: 6_000,
    healPatienceMs: 400,
    drainTimeoutMs: 3_000,
    regroupMs: 200,
    waitForWorkersMs: 60_000,
    maxTaskAttempts: DEFAULT_CORE_CONFIG.maxTaskAttempts,
    hedgeFactor: scenario.hedgeFactor,
    maxStepAttempts: DEFAULT_CORE_CONFIG.maxStepAttempts,
    maxSkippedSteps: 3,
    minLearners: scenario.minLearners,
    maxStalenessVersions: scenario.maxStalenessVersions,
    keptCheckpoints: scenario.keptCheckpoints,
    capacityExperiences: (scenario.maxStalenessVersions + 1) * scenario.prompts,
    capacityBytes: scenario.capacityBytes,
  };
}

/** Longest that nothing may be heard of a run: whatever it waits for has a deadline, and all of them together are this long. */
export function silenceLimitMs(scenario: Scenario): number {
  const { leaseTtlMs, taskTimeoutMs, stepTimeoutMs, round, healTimeoutMs, drainTimeoutMs, regroupMs } =
    coreConfig(scenario);
  const stepMs = STEP_PATIENCE * Math.max(stepTimeoutMs, round?.timeoutMs ?? 0);
  return leaseTtlMs + taskTimeoutMs + stepMs + healTimeoutMs + drainTimeoutMs + regroupMs;
}
