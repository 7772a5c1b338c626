/**
 * Everything the core can ask of its shell. The effects of one `reduce` call are executed in order, and those of one
 * call before those of the next. Journal effects always come first: the shell makes them durable (several calls may
 * share one synced batch) before it executes any effect after them, so nobody ever sees a fact that a crash can undo.
 *
 * Effects addressed to a worker are sent on its stream; when it is gone they are dropped, the core finds out by lease.
 */
import type { ErrorCode } from "../../shared/errors.js";
import type { ExperienceId } from "../../rl/types.js";
import type { JsonValue, ReceivedExperience } from "./events.js";
import type { DurableRecord } from "./records.js";
import type { WorkerRole } from "../../shared/roles.js";

/** Append the record; put and delete the named payloads in the same atomic batch. */
export interface JournalEffect {
  readonly type: "journal";
  readonly record: DurableRecord;
  /** Store the payloads that came with the event under these ids. */
  readonly putPayloads?: readonly ExperienceId[];
  /** Payloads nobody can need again. */
  readonly deletePayloads?: readonly ExperienceId[];
}

/** Answer to a registration; from now on the worker signs with this incarnation. */
export interface AcceptWorker {
  readonly type: "AcceptWorker";
  readonly workerId: string;
  readonly requestId: string;
  readonly incarnation: number;
  readonly epoch: number;
}
/** Answer to a heartbeat. */
export interface AckHeartbeat {
  readonly type: "AckHeartbeat";
  /** May be given work; a learner: stands where the next step starts from, or no stage is open. */
  readonly isReady: boolean;
  readonly workerId: string;
  readonly incarnation: number;
  /** The newest there is. */
  readonly policyVersion: number;
}
/** This incarnation is over: the process must drop what it does and register again (or exit with 75). */
export interface FenceWorker {
  readonly type: "FenceWorker";
  readonly workerId: string;
  readonly incarnation: number;
  /** REPLACED: another process has its name; else it may join again. */
  readonly code: "FENCED" | "REPLACED";
  readonly reason: string;
}
/** A draining worker holds nothing any more and may exit. */
export interface ReleaseWorker {
  readonly type: "ReleaseWorker";
  readonly workerId: string;
  readonly incarnation: number;
}

/** Give the task to the worker; it samples `experienceIds` (those still open) with at least `policyVersion`. */
export interface AssignTask {
  readonly type: "AssignTask";
  readonly workerId: string;
  readonly incarnation: number;
  readonly kind: TaskKind;
  readonly taskId: string;
  readonly attempt: number;
  readonly policyVersion: number;
  readonly experienceIds: readonly ExperienceId[];
  /** Why it is handed out again; null the first time. */
  readonly redelivery: Redelivery | null;
}
/**
 * Why a task is handed out again. Its holder: missed its heartbeats (`lease`), lost its connection (`connection`), left
 * on purpose (`drained`), was replaced by another process of its name (`fenced`), made no progress in time (`timeout`),
 * gave it back (`failed`), sampled from a policy that is too old now (`stale`), or had no room for it (`capacity`).
 * `hedge`: its holder is slow and keeps it; whoever is first counts. `isolated`: its prompts are tried one by one.
 */
export type Redelivery =
  | "lease"
  | "connection"
  | "drained"
  | "fenced"
  | "timeout"
  | "failed"
  | "stale"
  | "capacity"
  | "hedge"
  | "isolated";
export type TaskKind = "experience" | "evaluation";
/** The worker may stop the task: it was given away, is complete, or nobody wants it. */
export interface CancelTask {
  readonly type: "CancelTask";
  readonly workerId: string;
  readonly incarnation: number;
  readonly taskId: string;
  readonly attempt: number;
}
/** The worker's policy is too old to work with; it must fetch `policyVersion` first. */
export interface RefreshPolicy {
  readonly type: "RefreshPolicy";
  readonly workerId: string;
  readonly incarnation: number;
  readonly policyVersion: number;
}
/**
 * A verdict on each of the experiences that came together. Only `admitted` enters the run. `duplicate`: already resolved, forget it. `stale`: its
 * policy is too old, sample again. `fenced`: not yours any more. `nonfinite`: refused and given up. `unknown`: nobody
 * asked for it. `overCapacity`: refused for its size; it is asked for again when there is room, or given up.
 */
export type ExperienceOutcome =
  "admitted" | "duplicate" | "stale" | "fenced" | "nonfinite" | "unknown" | "overCapacity";
export interface AckExperiences {
  readonly type: "AckExperiences";
  readonly workerId: string;
  readonly incarnation: number;
  /** The list of the event, the same object. */
  readonly experiences: readonly ReceivedExperience[];
  /** One verdict for each. */
  readonly outcomes: readonly ExperienceOutcome[];
}
/** Verdict on an evaluation result; the shell passes only an `accepted` one on. */
export interface AckEvaluation {
  readonly type: "AckEvaluation";
  readonly workerId: string;
  readonly incarnation: number;
  readonly taskId: string;
  readonly attempt: number;
  readonly outcome: "accepted" | "duplicate" | "fenced" | "unknown";
}

/** To the train loop: every id of the collection is resolved; `experienceIds` are the admitted ones, sorted. */
export interface CollectCompleted {
  readonly type: "CollectCompleted";
  readonly iteration: number;
  readonly experienceIds: readonly ExperienceId[];
  /** How many ids will never come. */
  readonly abandoned: number;
  /** Published policy when this was decided. A later version may drop some of the ids: ask again after publishing. */
  readonly policyVersion: number;
}
/** To the train loop: the request can never be met (more experiences than the buffer may hold, ids used before). */
export interface CollectRefused {
  readonly type: "CollectRefused";
  readonly iteration: number;
  readonly reason: string;
}
/** To the train loop: every answer of the evaluation was accepted, or its prompt given up. */
export interface EvaluationCompleted {
  readonly type: "EvaluationCompleted";
  readonly evaluationId: string;
  readonly givenUp: readonly ExperienceId[];
}
/** To the train loop and the log: these experiences will not be trained (again). */
export interface ExperiencesDropped {
  readonly type: "ExperiencesDropped";
  readonly experienceIds: readonly ExperienceId[];
  readonly reason: string;
}

/** To the log: these ids will never come, because of what is wrong with them. */
export interface ExperiencesGivenUp {
  readonly type: "ExperiencesGivenUp";
  readonly experienceIds: readonly ExperienceId[];
  readonly reason: "poison" | "nonfinite" | "overCapacity";
}

export interface StepMember {
  readonly workerId: string;
  readonly incarnation: number;
  readonly rank: number;
  /** First micro-shard it computes. */
  readonly firstShard: number;
  /** How many; 0 when there are more learners than shards (it still receives, votes and applies). */
  readonly shardCount: number;
}
/** Open `generation` on the bulk path with exactly these members and send each its part. */
export interface StartStep {
  readonly type: "StartStep";
  readonly stage: string;
  readonly generation: number;
  readonly step: number;
  readonly members: readonly StepMember[];
  readonly experienceIds: readonly ExperienceId[];
  readonly input: JsonValue;
  readonly shardCount: number;
  /** The step was committed before; it is done again by learners restored from an older state. */
  readonly isReplay: boolean;
  /** From now until the step (of a round: its training) is given up. */
  readonly limitMs: number;
}
/** A round goes on without a member. */
export interface LeaveRound {
  readonly type: "LeaveRound";
  readonly generation: number;
  readonly step: number;
  readonly workerId: string;
}
/** Open `generation` on the bulk path with these members of the round; from now on it needs all of them. */
export interface AverageRound {
  readonly type: "AverageRound";
  readonly generation: number;
  readonly step: number;
  readonly members: readonly StepMember[];
  /** From now until it is given up. */
  readonly limitMs: number;
}
/** Every member applies the update it voted for. */
export interface CommitStep {
  readonly type: "CommitStep";
  readonly stage: string;
  readonly generation: number;
  readonly step: number;
  readonly hash: string;
  readonly members: readonly StepMember[];
}
/** Nobody applies: members discard the update and move on to the next step number. */
export interface SkipStep {
  readonly type: "SkipStep";
  readonly stage: string;
  readonly generation: number;
  readonly step: number;
  readonly reason: "nonfinite";
  readonly members: readonly StepMember[];
}
/** Close `generation`: members discard what they have of it; the same step follows in a later generation. */
export interface AbortStep {
  readonly type: "AbortStep";
  readonly generation: number;
  readonly step: number;
  readonly reason: AbortReason;
  /** What happened, for people. */
  readonly detail: string;
  readonly members: readonly StepMember[];
}
export type AbortReason =
  "memberLost" | "timeout" | "reduceFailed" | "hashMismatch" | "memberBehind" | "stageEnded";
/** To the train loop: the step is finished for good. */
export interface StepFinished {
  readonly type: "StepFinished";
  readonly stage: string;
  readonly step: number;
  readonly outcome: "committed" | "skipped";
  /** Digest all members agreed on; "" when skipped or older than the journal keeps. */
  readonly hash: string;
}
/** To the train loop: the step cannot be done as asked; `missing` are ids that are not (or no longer) buffered. */
export interface StepRefused {
  readonly type: "StepRefused";
  readonly stage: string;
  readonly step: number;
  readonly reason: string;
  readonly missing: readonly ExperienceId[];
}

/**
 * Where a healing learner gets its state from. `initial` is the stage's starting model at step 0; `vote` is the update
 * that it voted for and still holds: it only has to apply it.
 */
export type HealSource =
  | { readonly kind: "vote"; readonly hash: string }
  | { readonly kind: "peer"; readonly workerId: string; readonly incarnation: number }
  | { readonly kind: "checkpoint"; readonly checkpointId: string }
  | { readonly kind: "initial" };
/** Bring the learner to `step` of `stage`; it answers LearnerHealed with the same `healId`. */
export interface HealLearner {
  readonly type: "HealLearner";
  readonly workerId: string;
  readonly incarnation: number;
  readonly healId: number;
  readonly stage: string;
  readonly step: number;
  readonly source: HealSource;
}
/** A damaged checkpoint is not used any more: keep its files out of the way, and say so. */
export interface SetAsideCheckpoint {
  readonly type: "SetAsideCheckpoint";
  readonly checkpointId: string;
  readonly reason: string;
}
/** Too few learners for a step that is due; shown to the user. */
export interface PauseLearning {
  readonly type: "PauseLearning";
  readonly readyLearners: number;
  readonly minLearners: number;
}
/** Enough learners again. */
export interface ResumeLearning {
  readonly type: "ResumeLearning";
  readonly readyLearners: number;
}

/** Tell every rollout worker that a newer policy can be fetched. */
export interface AnnounceVersion {
  readonly type: "AnnounceVersion";
  readonly policyVersion: number;
  readonly sha256: string;
}
/** Tell whoever starts processes how many there should be. */
export interface DesiredScaleChanged {
  readonly type: "DesiredScaleChanged";
  readonly role: WorkerRole;
  readonly desired: number;
}
/** The run cannot go on: end it with the exit code of `code` and show the diagnosis. Nothing follows it. */
export interface StopRun {
  readonly type: "StopRun";
  readonly code: ErrorCode;
  readonly diagnosis: string;
}

export type Effect =
  | JournalEffect
  | AcceptWorker
  | AckHeartbeat
  | FenceWorker
  | ReleaseWorker
  | AssignTask
  | CancelTask
  | RefreshPolicy
  | AckExperiences
  | AckEvaluation
  | CollectCompleted
  | CollectRefused
  | EvaluationCompleted
  | ExperiencesDropped
  | ExperiencesGivenUp
  | StartStep
  | LeaveRound
  | AverageRound
  | CommitStep
  | SkipStep
  | AbortStep
  | StepFinished
  | StepRefused
  | HealLearner
  | SetAsideCheckpoint
  | PauseLearning
  | ResumeLearning
  | AnnounceVersion
  | DesiredScaleChanged
  | StopRun;
