/**
 * Every metric of every role, in one table: docs/metrics.md is rendered from it, the alert rules and the Grafana
 * dashboard are checked against it, and `createMetrics` registers from it. A number that is not here is not exported.
 *
 * Conventions (Prometheus naming guide): base units in the name, counters end in `_total`, ratios lie in 0..1, no
 * unbounded labels (never a prompt, an experience id or a pid). Which worker a series belongs to is a label of the
 * scrape target (`role`, `worker_id`, `run_id` from /sd/prometheus), not of the metric.
 */
import type { ProcessRole } from "../shared/roles.js";

/** Label values known in advance (exported at 0 from the start), or "open" for a set bounded elsewhere. */
export type LabelValues = readonly string[] | "open";

export interface MetricSpec {
  readonly name: `troupe_${string}`;
  readonly type: "counter" | "gauge" | "histogram";
  readonly roles: readonly ProcessRole[];
  readonly labels?: Readonly<Record<string, LabelValues>>;
  /** Upper bounds, histograms only. */
  readonly buckets?: readonly number[];
  /** What it counts, with the formula and unit. */
  readonly help: string;
  /** The range to expect in a healthy run, and what leaving it means. */
  readonly healthy: string;
}

const coordinator = ["coordinator"] as const;
const rollout = ["rollout"] as const;
const learner = ["learner"] as const;
const workers = ["rollout", "learner"] as const;
const everyRole = ["coordinator", "rollout", "learner"] as const;

const workerRole = ["rollout", "learner"] as const;
const trainedModel = ["actor", "critic"] as const;

/** 5 ms to 300 s: from one small RPC to a slow rollout batch. */
const SECONDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300] as const;
/** 0.1 ms to 5 s: one disk write or heartbeat. */
const SHORT_SECONDS = [
  0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5,
] as const;
const VERSIONS = [0, 1, 2, 3, 4, 6, 8, 12, 16] as const;

export const METRIC_TABLE = {
  // ── identity ──────────────────────────────────────────────────────────────────────────────────────────────────
  buildInfo: {
    name: "troupe_build_info",
    type: "gauge",
    roles: everyRole,
    labels: { version: "open", node: "open" },
    help: "1, with the program's version and the Node.js version as labels",
    healthy: "one version over the whole fleet",
  },
  runInfo: {
    name: "troupe_run_info",
    type: "gauge",
    roles: coordinator,
    labels: { run: "open" },
    help: "1, with the run's name as label",
    healthy: "1",
  },
  runActive: {
    name: "troupe_run_active",
    type: "gauge",
    roles: coordinator,
    help: "1 while a stage is running, 0 before, between and after",
    healthy: "1 until the last stage ends",
  },
  stageActive: {
    name: "troupe_stage_active",
    type: "gauge",
    roles: coordinator,
    labels: { stage: ["sft", "reward", "ppo"] },
    help: "1 for the stage that is running",
    healthy: "sum ≤ 1",
  },

  // ── membership ────────────────────────────────────────────────────────────────────────────────────────────────
  workers: {
    name: "troupe_workers",
    type: "gauge",
    roles: coordinator,
    labels: { role: workerRole, state: ["alive", "suspect", "draining"] },
    help: "registered workers by state; suspect = missed half a lease",
    healthy: "alive = what was started; suspect 0",
  },
  workersRequired: {
    name: "troupe_workers_required",
    type: "gauge",
    roles: coordinator,
    labels: { role: workerRole },
    help: "workers without which the current stage pauses (cluster.minLearners; 1 rollout in ppo)",
    healthy: "≤ alive workers of the role",
  },
  workerRegistrations: {
    name: "troupe_worker_registrations_total",
    type: "counter",
    roles: coordinator,
    labels: { role: workerRole, outcome: ["joined", "rejoined", "refused"] },
    help: "register calls by outcome",
    healthy: "joined = workers started; refused 0",
  },
  workerLeaseExpirations: {
    name: "troupe_worker_lease_expirations_total",
    type: "counter",
    roles: coordinator,
    labels: { role: workerRole },
    help: "workers declared lost because they were silent for cluster.leaseTtlMs",
    healthy: "0 without failures; above 3 in 10 minutes look at the network or the event-loop lag",
  },
  workerRestarts: {
    name: "troupe_worker_restarts_total",
    type: "counter",
    roles: coordinator,
    labels: { role: workerRole, reason: ["oom", "signal", "exit", "lease"] },
    help: "worker processes that came back under the same name, by how the previous one ended",
    healthy: "0 without failures",
  },

  // ── rollout tasks and the experience ledger ───────────────────────────────────────────────────────────────────
  rolloutTasks: {
    name: "troupe_rollout_tasks",
    type: "gauge",
    roles: coordinator,
    labels: { state: ["pending", "leased"] },
    help: "prompt batches waiting for a worker, and held by one",
    healthy: "leased ≈ alive rollout workers while collecting",
  },
  rolloutTaskRedeliveries: {
    name: "troupe_rollout_task_redeliveries_total",
    type: "counter",
    roles: coordinator,
    labels: {
      reason: [
        "lease",
        "connection",
        "drained",
        "fenced",
        "timeout",
        "failed",
        "stale",
        "capacity",
        "hedge",
        "isolated",
      ],
    },
    help: "prompt batches handed out again, by why: the holder's heartbeats stopped (lease), its connection broke, it left (drained), another process took its name (fenced), it made no progress (timeout), gave them back (failed), sampled from too old a policy (stale), had no room (capacity); or it is slow and an idle worker tries as well (hedge), or prompts are tried one by one to find the poison (isolated)",
    healthy:
      "0 without failures, apart from hedge and drained; timeout above 0 means cluster.taskTimeoutMs is too short",
  },
  experiencesAbandoned: {
    name: "troupe_experiences_abandoned_total",
    type: "counter",
    roles: coordinator,
    labels: { reason: ["poison", "nonfinite", "overCapacity", "iterationEnd", "stageEnd"] },
    help: "experiences asked for that will never come, by reason (poison: workers failed with them, cluster.maxTaskAttempts times and then alone); RUN_DIR/dropped.jsonl names them, but for what an iteration or stage leaves open at its end",
    healthy: "0; a few poison prompts are survivable, a growing number is not",
  },
  experiencesGenerated: {
    name: "troupe_experiences_generated_total",
    type: "counter",
    roles: rollout,
    help: "experiences generated and scored by this worker, redeliveries included",
    healthy: "sum over workers ≥ admitted",
  },
  experiencesAdmitted: {
    name: "troupe_experiences_admitted_total",
    type: "counter",
    roles: coordinator,
    help: "experience ids admitted, each once for the life of the run",
    healthy: "admitted = trained + dropped + buffered, always",
  },
  experiencesRejected: {
    name: "troupe_experiences_rejected_total",
    type: "counter",
    roles: coordinator,
    labels: { reason: ["duplicate", "stale", "fenced", "nonfinite", "unknown", "overCapacity", "invalid"] },
    help: "experiences that arrived and were not admitted, by reason",
    healthy: "0 without failures; invalid above 0 is a defect",
  },
  experiencesDropped: {
    name: "troupe_experiences_dropped_total",
    type: "counter",
    roles: coordinator,
    labels: { reason: ["stale", "skippedStep", "leftOut", "unused", "stageEnd"] },
    help: "admitted experiences that will not be trained on, by reason",
    healthy:
      "0 in synchronous runs; leftOut: rows of a learner that was slow or lost, with cluster.sync parameters",
  },
  experiencesTrained: {
    name: "troupe_experiences_trained_total",
    type: "counter",
    roles: coordinator,
    help: "admitted experiences in a committed batch manifest, counted once over all PPO epochs",
    healthy: "grows by ppo.rolloutBatchSize × ppo.samplesPerPrompt an iteration",
  },
  experiencesInFlight: {
    name: "troupe_experiences_in_flight",
    type: "gauge",
    roles: coordinator,
    help: "experiences asked for, neither admitted nor given up yet",
    healthy: "0 during updates of synchronous runs; in flight + buffered ≤ the buffer's capacity always",
  },
  bufferExperiences: {
    name: "troupe_buffer_experiences",
    type: "gauge",
    roles: coordinator,
    help: "experiences admitted, neither trained nor dropped yet",
    healthy: "falls back to 0 after every update in synchronous runs",
  },
  bufferBytes: {
    name: "troupe_buffer_bytes",
    type: "gauge",
    roles: coordinator,
    help: "memory of the buffered experiences, bytes",
    healthy: "bounded; does not grow over iterations",
  },
  intakeBytes: {
    name: "troupe_intake_bytes",
    type: "gauge",
    roles: coordinator,
    help: "experiences that arrived and are not on disk yet, bytes",
    healthy: "near 0; at 64 MiB workers are no longer read from: the disk of the journal is too slow",
  },
  bufferCapacityExperiences: {
    name: "troupe_buffer_capacity_experiences",
    type: "gauge",
    roles: coordinator,
    help: "experiences the buffer accepts before rollout workers are held back",
    healthy: "constant",
  },
  experienceStaleness: {
    name: "troupe_experience_staleness_versions",
    type: "histogram",
    roles: coordinator,
    buckets: VERSIONS,
    help: "policy version trained on − version that sampled, per trained experience",
    healthy: "all 0 in synchronous runs; ≤ the staleness limit always",
  },
  stalenessLimit: {
    name: "troupe_staleness_limit_versions",
    type: "gauge",
    roles: coordinator,
    help: "largest staleness that may be trained on",
    healthy: "constant",
  },

  // ── position in the run ───────────────────────────────────────────────────────────────────────────────────────
  iteration: {
    name: "troupe_iteration",
    type: "gauge",
    roles: coordinator,
    help: "finished PPO iterations (rollout + update) of this run",
    healthy: "grows; flat for 10 minutes is an alert",
  },
  optimizerStep: {
    name: "troupe_optimizer_step",
    type: "gauge",
    roles: coordinator,
    help: "committed optimizer steps of the running stage",
    healthy: "grows by one a commit, never back except at a stage start",
  },
  policyVersion: {
    name: "troupe_policy_version",
    type: "gauge",
    roles: coordinator,
    help: "newest published policy version",
    healthy: "grows by 1 an iteration",
  },
  learningPaused: {
    name: "troupe_learning_paused",
    type: "gauge",
    roles: coordinator,
    help: "1 while an optimizer step is due and fewer than cluster.minLearners learners are ready",
    healthy: "0",
  },
  generation: {
    name: "troupe_generation",
    type: "gauge",
    roles: coordinator,
    help: "number of the learner group; +1 each time a learner joins or leaves",
    healthy: "constant without failures",
  },
  coordinatorEpoch: {
    name: "troupe_coordinator_epoch",
    type: "gauge",
    roles: coordinator,
    help: "starts of the coordinator on this run directory",
    healthy: "1 without restarts",
  },
  workerPolicyVersion: {
    name: "troupe_worker_policy_version",
    type: "gauge",
    roles: workers,
    help: "policy version this worker holds",
    healthy: "troupe_policy_version, or one behind while weights travel",
  },

  // ── time ──────────────────────────────────────────────────────────────────────────────────────────────────────
  iterationPhaseDuration: {
    name: "troupe_iteration_phase_duration_seconds",
    type: "histogram",
    roles: coordinator,
    labels: { phase: ["collect", "update", "publish", "checkpoint", "evaluate"] },
    buckets: SECONDS,
    help: "wall time of each phase of an iteration, seconds",
    healthy: "collect + update ≥ 90 % of the iteration",
  },
  stepDuration: {
    name: "troupe_step_duration_seconds",
    type: "histogram",
    roles: learner,
    labels: { phase: ["wait", "compute", "overlap", "allreduce", "optimizer"] },
    buckets: SECONDS,
    help: "wall time of each phase of an optimizer step on this learner, seconds; overlap: of compute, while gradients travel",
    healthy: "compute dominates; wait spread over learners shows a straggler",
  },
  rolloutDuration: {
    name: "troupe_rollout_duration_seconds",
    type: "histogram",
    roles: rollout,
    labels: { phase: ["generate", "score"] },
    buckets: SECONDS,
    help: "wall time of one prompt batch by phase, seconds",
    healthy: "steady; what a kill costs at most",
  },
  rolloutTokens: {
    name: "troupe_rollout_tokens_total",
    type: "counter",
    roles: rollout,
    labels: { kind: ["prompt", "response"] },
    help: "tokens read and generated by this worker",
    healthy: "rate is the generation throughput",
  },
  trainedTokens: {
    name: "troupe_trained_tokens_total",
    type: "counter",
    roles: learner,
    help: "tokens this learner ran forward and backward over, padding not counted",
    healthy: "equal over learners within 20 %",
  },
  weightTransferDuration: {
    name: "troupe_weight_transfer_duration_seconds",
    type: "histogram",
    roles: workers,
    buckets: SECONDS,
    help: "from the notice of a new policy version to its verified swap, seconds",
    healthy: "small against the iteration",
  },

  // ── all-reduce ────────────────────────────────────────────────────────────────────────────────────────────────
  allreduceBytes: {
    name: "troupe_allreduce_bytes_total",
    type: "counter",
    roles: ["coordinator", "learner"],
    labels: { direction: ["in", "out"] },
    help: "gradient bytes received and sent on the wire",
    healthy: "per step: wire bytes of the gradients × learners, both ways",
  },
  allreduceDuration: {
    name: "troupe_allreduce_duration_seconds",
    type: "histogram",
    roles: coordinator,
    buckets: SECONDS,
    help: "from the first bucket of a step to the last reduced bucket sent, seconds",
    healthy: "below a third of the update",
  },
  stateMismatches: {
    name: "troupe_state_mismatches_total",
    type: "counter",
    roles: coordinator,
    help: "checkpoints before which the learners' whole states were not all equal",
    healthy: "0; else a machine's memory is at fault, or learners are not of one kind",
  },
  allreduceAborts: {
    name: "troupe_allreduce_aborts_total",
    type: "counter",
    roles: coordinator,
    labels: {
      reason: ["memberLost", "timeout", "reduceFailed", "hashMismatch", "memberBehind", "stageEnded"],
    },
    help: "optimizer steps given up as a whole and done again in a new generation, by reason",
    healthy: "0 without failures",
  },
  staleFrames: {
    name: "troupe_stale_frames_total",
    type: "counter",
    roles: ["coordinator", "learner"],
    help: "messages of an older epoch, generation or step that were refused",
    healthy: "0 without failures",
  },
  skippedSteps: {
    name: "troupe_skipped_steps_total",
    type: "counter",
    roles: coordinator,
    labels: { reason: ["nonfinite"] },
    help: "optimizer steps left out for good because a learner voted against them, by reason",
    healthy: "0; three non-finite in a row end the run with exit code 20",
  },

  // ── learning ──────────────────────────────────────────────────────────────────────────────────────────────────
  stageLoss: {
    name: "troupe_stage_loss",
    type: "gauge",
    roles: coordinator,
    labels: { stage: ["sft", "reward"] },
    help: "last training loss: mean cross entropy per token (sft), mean −log σ(chosen − rejected) (reward), nats",
    healthy: "falls; reward starts at ln 2 ≈ 0.69",
  },
  rewardAccuracy: {
    name: "troupe_reward_accuracy_ratio",
    type: "gauge",
    roles: coordinator,
    help: "share of pairs with score(chosen) > score(rejected), last evaluation",
    healthy: "0.6 to 0.9; near 1 on training data is overfitting",
  },
  rewardMean: {
    name: "troupe_reward_mean",
    type: "gauge",
    roles: coordinator,
    help: "mean reward-model score of the iteration's answers",
    healthy: "rises, then levels off",
  },
  klMean: {
    name: "troupe_kl_mean",
    type: "gauge",
    roles: coordinator,
    help: "mean over sequences of Σ_t log π(token) − log π_ref(token), nats",
    healthy: "0 at the start, 0 to 20 after; negative or above 50 is trouble",
  },
  klCoef: {
    name: "troupe_kl_coef",
    type: "gauge",
    roles: coordinator,
    help: "weight of the KL penalty in the rewards",
    healthy: "constant, or slowly moving under the adaptive controller",
  },
  approxKl: {
    name: "troupe_approx_kl",
    type: "gauge",
    roles: coordinator,
    help: "mean over tokens of ½(log π_new − log π_old)² in the last update, nats²",
    healthy: "below 0.05",
  },
  policyLoss: {
    name: "troupe_policy_loss",
    type: "gauge",
    roles: coordinator,
    help: "mean of max(−A·r, −A·clip(r, 1 ± cliprange)) over counted tokens",
    healthy: "around 0, small",
  },
  valueLoss: {
    name: "troupe_value_loss",
    type: "gauge",
    roles: coordinator,
    help: "half the mean clipped squared error of the value head against the returns",
    healthy: "falls, then levels off",
  },
  entropy: {
    name: "troupe_entropy",
    type: "gauge",
    roles: coordinator,
    help: "mean entropy estimate of the sampling distribution per token, −log π(token), nats",
    healthy: "falls slowly; near 0 is collapse",
  },
  policyClip: {
    name: "troupe_policy_clip_ratio",
    type: "gauge",
    roles: coordinator,
    help: "share of counted tokens whose policy loss was clipped",
    healthy: "0.01 to 0.3",
  },
  importanceWeight: {
    name: "troupe_importance_weight",
    type: "gauge",
    roles: coordinator,
    help: "mean weight of counted tokens for the staleness of their experience, capped",
    healthy: "1 ± 0.1; 0 in synchronous runs, which weigh nothing",
  },
  importanceEss: {
    name: "troupe_importance_effective_share",
    type: "gauge",
    roles: coordinator,
    help: "effective share of the counted tokens, (Σ weight)² / (tokens · Σ weight²)",
    healthy: "above 0.5; 0 in synchronous runs",
  },
  importanceCapped: {
    name: "troupe_importance_capped_ratio",
    type: "gauge",
    roles: coordinator,
    help: "share of counted tokens whose weight passed ppo.importanceCap",
    healthy: "below 0.01",
  },
  valueClip: {
    name: "troupe_value_clip_ratio",
    type: "gauge",
    roles: coordinator,
    help: "share of counted tokens whose value loss was clipped",
    healthy: "below 0.3",
  },
  gradNorm: {
    name: "troupe_grad_norm",
    type: "gauge",
    roles: coordinator,
    labels: { model: trainedModel },
    help: "global L2 norm of the averaged gradients before clipping, last step",
    healthy: "same order of magnitude over the run",
  },
  learningRate: {
    name: "troupe_learning_rate",
    type: "gauge",
    roles: coordinator,
    labels: { model: trainedModel },
    help: "learning rate of the last step (sft and reward stages report theirs as actor)",
    healthy: "follows the schedule",
  },
  responseTokens: {
    name: "troupe_response_tokens_mean",
    type: "gauge",
    roles: coordinator,
    help: "mean answer length of the iteration, tokens",
    healthy: "no sudden jump to generation.maxNewTokens or to 1",
  },
  eos: {
    name: "troupe_eos_ratio",
    type: "gauge",
    roles: coordinator,
    help: "share of answers the model ended itself",
    healthy: "does not fall",
  },

  // ── durability ────────────────────────────────────────────────────────────────────────────────────────────────
  checkpointDuration: {
    name: "troupe_checkpoint_duration_seconds",
    type: "histogram",
    roles: coordinator,
    buckets: SECONDS,
    help: "from the decision to save to the renamed, fsynced checkpoint, seconds",
    healthy: "small against the interval",
  },
  checkpointBytes: {
    name: "troupe_checkpoint_bytes",
    type: "gauge",
    roles: coordinator,
    help: "size of the newest checkpoint, bytes",
    healthy: "constant per stage",
  },
  checkpointLastSuccess: {
    name: "troupe_checkpoint_last_success_timestamp_seconds",
    type: "gauge",
    roles: coordinator,
    help: "Unix time of the newest complete checkpoint; 0 before the first",
    healthy: "younger than three checkpoint intervals",
  },
  checkpointFailures: {
    name: "troupe_checkpoint_failures_total",
    type: "counter",
    roles: coordinator,
    help: "checkpoints that could not be written; training goes on from the previous one",
    healthy: "0",
  },
  checkpointsDamaged: {
    name: "troupe_checkpoints_damaged_total",
    type: "counter",
    roles: coordinator,
    help: "checkpoints set aside because a file was missing or did not match its sha256; the run went on from an older state",
    healthy: "0; anything else means a failing disk",
  },
  journalAppendDuration: {
    name: "troupe_journal_append_duration_seconds",
    type: "histogram",
    roles: coordinator,
    buckets: SHORT_SECONDS,
    help: "one durable journal append, fsync included, seconds",
    healthy: "p99 below 0.05 on an SSD",
  },
  runDirFreeBytes: {
    name: "troupe_run_dir_free_bytes",
    type: "gauge",
    roles: coordinator,
    help: "free space of the file system that holds the run directory, bytes",
    healthy: "above four times troupe_checkpoint_bytes",
  },

  // ── rpc ───────────────────────────────────────────────────────────────────────────────────────────────────────
  rpcHandling: {
    name: "troupe_rpc_server_handling_seconds",
    type: "histogram",
    roles: coordinator,
    labels: { method: "open", code: "open" },
    buckets: SHORT_SECONDS,
    help: "time to answer a unary call, or life of a stream, by method of the contract and gRPC status name",
    healthy: "heartbeats p99 below 0.2",
  },
  authFailures: {
    name: "troupe_auth_failures_total",
    type: "counter",
    roles: coordinator,
    labels: { reason: ["missing", "invalid", "role"] },
    help: "calls refused for a missing or wrong token, or a role that may not make them",
    healthy: "0",
  },
  connections: {
    name: "troupe_connections",
    type: "gauge",
    roles: coordinator,
    help: "open connections of workers and tools",
    healthy: "workers and learners, and a few tools; cluster.maxConnections is the limit",
  },
  connectionsRefused: {
    name: "troupe_connections_refused_total",
    type: "counter",
    roles: coordinator,
    labels: { reason: ["address", "total"] },
    help: "connections closed at once: too many from one address, or in all",
    healthy: "0",
  },
  reconnects: {
    name: "troupe_worker_reconnects_total",
    type: "counter",
    roles: workers,
    help: "times this worker lost the coordinator and attached again",
    healthy: "0 without failures",
  },
  heartbeatRoundTrip: {
    name: "troupe_heartbeat_round_trip_seconds",
    type: "histogram",
    roles: workers,
    buckets: SHORT_SECONDS,
    help: "heartbeat sent to answer received, seconds",
    healthy: "p99 below a tenth of cluster.leaseTtlMs",
  },
} as const satisfies Readonly<Record<string, MetricSpec>>;

export type MetricTable = typeof METRIC_TABLE;
export type MetricKey = keyof MetricTable;

/** Keys of the metrics a role exports. */
export type MetricKeyOf<R extends ProcessRole> = {
  [K in MetricKey]: R extends MetricTable[K]["roles"][number] ? K : never;
}[MetricKey];
