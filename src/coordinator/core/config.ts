/** The core's own settings: numbers only, copied by the shell from the run's configuration (src/config/schema.ts). */
export interface CoreConfig {
  /** A member silent for this long is lost. */
  readonly leaseTtlMs: number;
  /** A rollout task without progress for this long is given to another worker. */
  readonly taskTimeoutMs: number;
  /** An optimizer step that takes longer is aborted and done again, with twice the time if no learner was in time. */
  readonly stepTimeoutMs: number;
  /**
   * A step is a round: its members train alone, and the parameters of those who are there at its end are averaged. The
   * result depends on who they are and how far they came, so a repeated round need not have the journalled hash. null:
   * steps are sums of gradients.
   */
  readonly round: {
    /** A round whose members train for longer is aborted and done again. */
    readonly timeoutMs: number;
  } | null;
  /** A learner that takes longer to load or copy parameters is fenced. */
  readonly healTimeoutMs: number;
  /**
   * How long learners that are ready wait for one that copies before they train on without it; twice as long after each
   * copy that came too late for it.
   */
  readonly healPatienceMs: number;
  /**
   * How long a learner that was told to leave stays while it holds the newest state alone and another learner is there,
   * or was there as long ago, that could copy it.
   */
  readonly drainTimeoutMs: number;
  /**
   * After all learners were lost: how long to wait for one that still holds newer parameters than the checkpoint, once
   * all who are known to have held them registered again. While one of those is missing, the wait is a whole lease.
   */
  readonly regroupMs: number;
  /** Work without a single worker to do it stops the run after this long. */
  readonly waitForWorkersMs: number;
  /** After this many failures a task's experiences are tried one by one; one that fails alone is abandoned as poison. */
  readonly maxTaskAttempts: number;
  /** A task that takes this many times the mean goes to an idle worker as well, once no other waits; 0 = never. */
  readonly hedgeFactor: number;
  /** Consecutive aborts of one optimizer step before the run stops with a diagnosis. */
  readonly maxStepAttempts: number;
  /** Consecutive non-finite steps before the run stops. */
  readonly maxSkippedSteps: number;
  /** No optimizer step starts below this many ready learners. */
  readonly minLearners: number;
  /** Largest allowed `policyVersion(now) − policyVersion(sampled)` of a trained experience; 0 is synchronous. */
  readonly maxStalenessVersions: number;
  /** Newest checkpoints from which the run can go on: the steps since the oldest of them stay repeatable. */
  readonly keptCheckpoints: number;
  /** Experiences that may be requested and not yet trained or dropped: `(maxStalenessVersions + 1) · B`. */
  readonly capacityExperiences: number;
  /** Payload bytes of buffered experiences. */
  readonly capacityBytes: number;
}

/** The defaults of the timeout table (docs/operations.md); each can be overridden by the run's configuration. */
export const DEFAULT_CORE_CONFIG: CoreConfig = {
  leaseTtlMs: 10_000,
  taskTimeoutMs: 120_000,
  stepTimeoutMs: 60_000,
  round: null,
  healTimeoutMs: 600_000,
  healPatienceMs: 60_000,
  drainTimeoutMs: 20_000,
  regroupMs: 2_000,
  waitForWorkersMs: 600_000,
  maxTaskAttempts: 3,
  hedgeFactor: 2,
  maxStepAttempts: 10,
  maxSkippedSteps: 3,
  minLearners: 1,
  maxStalenessVersions: 0,
  keptCheckpoints: 1,
  capacityExperiences: 128,
  capacityBytes: 1024 ** 3,
};
