/** The limits the decision core works with, from the run's configuration. */
import type { Config } from "../config/schema.js";
import { DEFAULT_CORE_CONFIG, type CoreConfig } from "./core/index.js";

export function coreConfigOf({ cluster, ppo, checkpoint }: Config): CoreConfig {
  const experiencesPerIteration = ppo.rolloutBatchSize * ppo.samplesPerPrompt * ppo.generationBatches;
  return {
    ...DEFAULT_CORE_CONFIG,
    leaseTtlMs: cluster.leaseTtlMs,
    taskTimeoutMs: cluster.taskTimeoutMs,
    stepTimeoutMs: cluster.stepTimeoutMs,
    round: cluster.sync === "parameters" ? { timeoutMs: cluster.stepTimeoutMs * cluster.syncEvery } : null,
    maxTaskAttempts: cluster.maxTaskAttempts,
    hedgeFactor: cluster.hedgeFactor,
    healTimeoutMs: cluster.healTimeoutMs,
    healPatienceMs: cluster.stepTimeoutMs,
    drainTimeoutMs: cluster.drainTimeoutMs,
    minLearners: cluster.minLearners,
    maxStalenessVersions: ppo.staleness,
    capacityExperiences: (ppo.staleness + 1) * experiencesPerIteration,
    keptCheckpoints: checkpoint.keepLast,
  };
}
