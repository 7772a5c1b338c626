/**
 * Everything that can happen to the coordinator. The shell turns RPCs, timers and calls of the train loop into these
 * and hands them to `reduce` one at a time.
 *
 * Events from a worker carry the `incarnation` it got when it registered. An incarnation is unique for the life of
 * the run (its high part is the coordinator's epoch), so one comparison fences dead processes, replaced processes and
 * everything that belongs to an older epoch.
 */
import type { ErrorCode } from "../../shared/errors.js";
import type { ExperienceId } from "../../rl/types.js";
import type { WorkerRole } from "../../shared/roles.js";

/** Values that survive JSON unchanged; what the train loop wants kept beside a record. The core never looks inside. */
export type JsonValue =
  null | boolean | number | string | readonly JsonValue[] | { readonly [key: string]: JsonValue };

/** Where a learner's parameters stand. `hash` digests the state after `step`, as voted; "" when not known. */
export interface LearnerPosition {
  readonly stage: string;
  readonly step: number;
  readonly hash: string;
  /**
   * The step it voted for without hearing what became of it, and the digest it would have then: it still holds that
   * update. null or absent when there is none.
   */
  readonly voted?: { readonly step: number; readonly hash: string } | null;
}

export interface TaskRequest {
  /** Unique for the run. */
  readonly taskId: string;
  readonly experienceIds: readonly ExperienceId[];
}

interface FromWorker {
  readonly workerId: string;
  readonly incarnation: number;
}

interface FromTask extends FromWorker {
  readonly taskId: string;
  readonly attempt: number;
}

/** A worker asks to join; the same `requestId` again gets the same answer. Replaces an older process of that id. */
export interface WorkerRegistered {
  readonly type: "WorkerRegistered";
  readonly workerId: string;
  readonly role: WorkerRole;
  /** Unique per attempt to register; repeated only when the same request is sent again. */
  readonly requestId: string;
  /** Learners: the state they hold; null when they hold none. */
  readonly position: LearnerPosition | null;
  /** Rollouts: the policy they hold; -1 when none. */
  readonly policyVersion: number;
}
/** Sign of life; renews the member's lease and tells what the worker really holds. */
export interface WorkerHeartbeat extends FromWorker {
  readonly type: "WorkerHeartbeat";
  /** Learners: last optimizer step applied in the current stage. */
  readonly appliedStep?: number;
  /** Rollouts: policy version now active. */
  readonly policyVersion?: number;
  /** Rollouts: per task a counter that grows while work advances (tokens); only growth extends the task's lease. */
  readonly progress?: readonly {
    readonly taskId: string;
    readonly attempt: number;
    readonly tokens: number;
  }[];
}
/** The worker's stream broke: a crash is suspected, so its work is given away at once. */
export interface WorkerDisconnected extends FromWorker {
  readonly type: "WorkerDisconnected";
}
/**
 * The worker wants to leave: it gets no new work, finishes what it holds and is then released. A learner that alone
 * holds the newest state is kept until another holds it too, for at most `drainTimeoutMs`.
 */
export interface WorkerDraining extends FromWorker {
  readonly type: "WorkerDraining";
}
/** The worker is gone on purpose; what it held goes back without blame. */
export interface WorkerLeft extends FromWorker {
  readonly type: "WorkerLeft";
}
/** A rollout worker will hold up to `credits` tasks at a time (a level, not an increment: repeating it is harmless). */
export interface WorkerReady extends FromWorker {
  readonly type: "WorkerReady";
  readonly credits: number;
  readonly policyVersion: number;
}

/** Scored experiences that arrived in one message; the payloads stay with the shell until the core admits them. */
export interface ExperiencesReceived extends FromWorker {
  readonly type: "ExperiencesReceived";
  readonly experiences: readonly ReceivedExperience[];
}
export interface ReceivedExperience {
  readonly taskId: string;
  readonly attempt: number;
  readonly experienceId: ExperienceId;
  /** Version of the policy that sampled its oldest token. */
  readonly policyVersion: number;
  /** Payload size. */
  readonly bytes: number;
  /** No NaN or infinity in any column. */
  readonly isFinite: boolean;
}
/** The result of an evaluation task arrived; the shell holds it until the core accepts it. */
export interface EvaluationReceived extends FromTask {
  readonly type: "EvaluationReceived";
}
/** The worker considers the task done; ids still open are then a failure of this attempt. */
export interface TaskFinished extends FromTask {
  readonly type: "TaskFinished";
}
/** The worker gives the task up; `reason` is for people. */
export interface TaskFailed extends FromTask {
  readonly type: "TaskFailed";
  readonly reason: string;
}

/** A learner's gradients are computed, or its part of a round is trained; it waits for the others. */
export interface StepComputed extends FromWorker {
  readonly type: "StepComputed";
  readonly generation: number;
  readonly step: number;
}
/** A learner's verdict on the reduced step: finite or not, and the digest of the state it would have after it. */
export interface StepVote extends FromWorker {
  readonly type: "StepVote";
  readonly generation: number;
  readonly step: number;
  readonly isFinite: boolean;
  readonly hash: string;
}
/** A learner applied (or skipped) a finished step. */
export interface StepApplied extends FromWorker {
  readonly type: "StepApplied";
  readonly stage: string;
  readonly step: number;
}
/** A learner could not apply a step that was committed; it holds no usable state any more. */
export interface ApplyFailed extends FromWorker {
  readonly type: "ApplyFailed";
  readonly generation: number;
  readonly step: number;
  readonly code: ErrorCode;
  /** For people. */
  readonly reason: string;
}
/** A learner cannot take part: it was asked for a step that does not follow the last one it applied. */
export interface LearnerBehind extends FromWorker {
  readonly type: "LearnerBehind";
  readonly generation: number;
  /** Last step it applied. */
  readonly appliedStep: number;
}
/** A learner finished copying parameters and optimizer state and stands at `position`. */
export interface LearnerHealed extends FromWorker {
  readonly type: "LearnerHealed";
  readonly healId: number;
  readonly position: LearnerPosition;
}
/** The source of a heal has handed its state over: the copy goes on without it. */
export interface StateLent extends FromWorker {
  readonly type: "StateLent";
  readonly healId: number;
}
/** A learner could not copy its state (peer gone, checksum wrong); it is told again from where. */
export interface LearnerHealFailed extends FromWorker {
  readonly type: "LearnerHealFailed";
  readonly healId: number;
  readonly reason: string;
}
/**
 * The sum of `generation` cannot come about. `workerId` is who is to blame as far as the coordinator itself knows: what one
 * learner says of another is no proof, their connection may be the cause.
 */
export interface ReduceFailed {
  readonly type: "ReduceFailed";
  readonly generation: number;
  readonly step: number;
  readonly workerId: string | null;
  readonly reason: string;
}

/** A learner did not answer what it was asked between steps, within the time for it. */
export interface LearnerSilent {
  readonly type: "LearnerSilent";
  readonly workerId: string;
  readonly incarnation: number;
  readonly reason: string;
}
/** Between steps the train loop wants something of a learner and finds none that is ready, or does so no more. */
export interface LearnersAwaited {
  readonly type: "LearnersAwaited";
  readonly isAwaited: boolean;
}

/** Learners that stand after the same step fingerprinted their whole states, and not all are equal. */
export interface StatesDiffer {
  readonly type: "StatesDiffer";
  readonly step: number;
  readonly states: readonly { readonly workerId: string; readonly sha256: string }[];
}

/** Of a round: these members have trained; the others are too late for it. */
export interface RoundTrained {
  readonly type: "RoundTrained";
  readonly generation: number;
  readonly step: number;
  readonly workerIds: readonly string[];
  /** Experiences of the round that none of them trained. */
  readonly leftOut: readonly ExperienceId[];
}

/** First event of every coordinator process, after replay: opens a new epoch. */
export interface CoordinatorStarted {
  readonly type: "CoordinatorStarted";
  /** The run's settings from now on; left out where nobody compares them. */
  readonly config?: JsonValue;
}
/** The run is over, or ends here: its workers are sent away. */
export interface RunClosing {
  readonly type: "RunClosing";
}
/** Time passed; due at `nextDeadlineMs` at the latest. */
export interface Tick {
  readonly type: "Tick";
}
/** The train loop enters a stage; step numbers start again at 1. Repeating the current stage resumes it. */
export interface StageStarted {
  readonly type: "StageStarted";
  readonly stage: string;
  /** Minibatches that make one step: what its step numbers count. */
  readonly minibatchesPerStep?: number;
}
/** The stage is over: whatever is still open or buffered is dropped. */
export interface StageFinished {
  readonly type: "StageFinished";
  readonly stage: string;
}
/** The train loop begins an iteration; `promptCursor` is where its prompts start. */
export interface IterationStarted {
  readonly type: "IterationStarted";
  readonly iteration: number;
  readonly promptCursor: number;
}
/** All steps of the iteration are finished; its experiences can be forgotten. `resume` comes back after a restart. */
export interface IterationCommitted {
  readonly type: "IterationCommitted";
  readonly iteration: number;
  readonly promptCursor: number;
  readonly resume: JsonValue;
}
/**
 * The train loop wants these experiences, now or ahead of time; they start when the buffer has room. Repeating a request
 * resumes it: the answer then tells what is left of them.
 */
export interface CollectRequested {
  readonly type: "CollectRequested";
  readonly iteration: number;
  /** Oldest version that may sample them; tasks wait until it is published. */
  readonly policyVersion: number;
  readonly tasks: readonly TaskRequest[];
}
/** No iteration follows the committed ones: whatever was collected ahead is given up. */
export interface CollectionsCancelled {
  readonly type: "CollectionsCancelled";
}
/** The train loop wants evaluation tasks done; their answers count once and never enter the ledger. */
export interface EvaluationRequested {
  readonly type: "EvaluationRequested";
  readonly evaluationId: string;
  readonly policyVersion: number;
  readonly tasks: readonly TaskRequest[];
}
/** The train loop wants one optimizer step. A step that is already finished is answered from the journal. */
export interface StepRequested {
  readonly type: "StepRequested";
  readonly stage: string;
  /** Contiguous within the stage, from 1. */
  readonly step: number;
  /** ppo: the minibatch. sft, reward: empty, `input` names the rows. */
  readonly experienceIds: readonly ExperienceId[];
  /** Whatever else the learners need to do the step again identically (epoch, klCoef, row range, ...). */
  readonly input: JsonValue;
  /** Fixed micro-shards of the minibatch; results do not depend on who computes which. */
  readonly shardCount: number;
  /** No later step uses these experiences: they count as trained when this one commits. */
  readonly isFinalUse: boolean;
}
/** New policy weights are complete in the weight store. Versions only grow; the same one again is harmless. */
export interface VersionPublished {
  readonly type: "VersionPublished";
  readonly policyVersion: number;
  readonly sha256: string;
}
/** A checkpoint is durable under its final name; steps before the oldest one kept need not be repeatable any more. */
export interface CheckpointSaved {
  readonly type: "CheckpointSaved";
  readonly checkpointId: string;
  readonly stage: string;
  /** Optimizer step it holds. */
  readonly step: number;
  readonly resume: JsonValue;
}
/** A checkpoint does not hold what its manifest says; it must not be used again. */
export interface CheckpointDamaged {
  readonly type: "CheckpointDamaged";
  readonly checkpointId: string;
  /** For people. */
  readonly reason: string;
}
/** Told in one event, so that the work that waited for it is shared out evenly. */
export interface PolicyHeld {
  readonly type: "PolicyHeld";
  readonly policyVersion: number;
  readonly workers: readonly { readonly workerId: string; readonly incarnation: number }[];
}
/** Someone asked for another number of workers of a role. */
export interface ScaleRequested {
  readonly type: "ScaleRequested";
  readonly role: WorkerRole;
  readonly desired: number;
}

export type WorkerEvent =
  | WorkerHeartbeat
  | WorkerDisconnected
  | WorkerDraining
  | WorkerLeft
  | WorkerReady
  | ExperiencesReceived
  | EvaluationReceived
  | TaskFinished
  | TaskFailed
  | StepComputed
  | StepVote
  | StepApplied
  | ApplyFailed
  | LearnerBehind
  | StateLent
  | LearnerHealed
  | LearnerHealFailed;

export type TrainLoopEvent =
  | StageStarted
  | StageFinished
  | IterationStarted
  | IterationCommitted
  | CollectRequested
  | CollectionsCancelled
  | EvaluationRequested
  | StepRequested
  | VersionPublished
  | CheckpointSaved
  | CheckpointDamaged
  | ScaleRequested;

export type CoordinatorEvent =
  | CoordinatorStarted
  | RunClosing
  | Tick
  | WorkerRegistered
  | WorkerEvent
  | PolicyHeld
  | ReduceFailed
  | LearnerSilent
  | LearnersAwaited
  | StatesDiffer
  | RoundTrained
  | TrainLoopEvent;
