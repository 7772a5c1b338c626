/**
 * The durable facts of a run, in the order they became true. The durable state is a fold of these records and
 * nothing else (`applyRecord` in durable.ts), live and in replay. Anything a restarted coordinator can learn again
 * from its workers (members, leases, votes) is deliberately not a record.
 */
import type { ExperienceId } from "../../rl/types.js";
import type { JsonValue, TaskRequest } from "./events.js";
import type { WorkerRole } from "../../shared/roles.js";

/** Why an id that was asked for was never admitted. */
export type AbandonReason = "poison" | "nonfinite" | "overCapacity" | "iterationEnd" | "stageEnd";
/** Why an admitted experience will not be trained. */
export type DropReason = "stale" | "skippedStep" | "leftOut" | "unused" | "stageEnd";

/** A coordinator process took over; everything of an older epoch is fenced. */
export interface EpochStartedRecord {
  readonly type: "EpochStarted";
  readonly epoch: number;
  /** The settings it goes on with; older journals lack them. */
  readonly config?: JsonValue;
}
export interface StageStartedRecord {
  readonly type: "StageStarted";
  readonly stage: string;
  /** Older journals lack it. */
  readonly minibatchesPerStep?: number;
}
export interface StageFinishedRecord {
  readonly type: "StageFinished";
  readonly stage: string;
}
export interface IterationStartedRecord {
  readonly type: "IterationStarted";
  readonly iteration: number;
  readonly promptCursor: number;
}
/** All ids of the iteration are resolved; from now on every one of them is a duplicate. */
export interface IterationCommittedRecord {
  readonly type: "IterationCommitted";
  readonly iteration: number;
  readonly promptCursor: number;
  readonly resume: JsonValue;
}
/** These ids are asked for and have room reserved. */
export interface CollectionOpenedRecord {
  readonly type: "CollectionOpened";
  readonly iteration: number;
  readonly policyVersion: number;
  readonly tasks: readonly TaskRequest[];
}
/** open -> buffered, of experiences that came together. Their payloads are in the same atomic batch. */
export interface ExperiencesAdmittedRecord {
  readonly type: "ExperiencesAdmitted";
  readonly policyVersion: number;
  readonly experienceIds: readonly ExperienceId[];
  /** Payload sizes, one for each. */
  readonly bytes: readonly number[];
}
/** open -> abandoned */
export interface ExperiencesAbandonedRecord {
  readonly type: "ExperiencesAbandoned";
  readonly experienceIds: readonly ExperienceId[];
  readonly reason: AbandonReason;
}
/** buffered -> dropped */
export interface ExperiencesDroppedRecord {
  readonly type: "ExperiencesDropped";
  readonly experienceIds: readonly ExperienceId[];
  readonly reason: DropReason;
}
/** The manifest of a step, written before anybody computes; a later generation of the same step replaces it. */
export interface StepPreparedRecord {
  readonly type: "StepPrepared";
  readonly stage: string;
  readonly generation: number;
  readonly step: number;
  readonly experienceIds: readonly ExperienceId[];
  readonly input: JsonValue;
  readonly shardCount: number;
  readonly isFinalUse: boolean;
}
/** A generation that repeats an already committed step; only its number must never be used again. */
export interface GenerationOpenedRecord {
  readonly type: "GenerationOpened";
  readonly generation: number;
  readonly step: number;
}
/**
 * All members voted finite with this hash. On a final use: buffered -> trained, or dropped when neither this step nor
 * one before it took it in.
 */
export interface StepCommittedRecord {
  readonly type: "StepCommitted";
  readonly stage: string;
  readonly generation: number;
  readonly step: number;
  readonly hash: string;
  /** The members: they hold the state after it, and a restarted coordinator waits for them. */
  readonly holders?: readonly string[];
  /** Of a round: experiences that no learner got to. */
  readonly leftOut?: readonly ExperienceId[];
}
/** Nobody applied; the number is used up. On a final use: buffered -> trained if an earlier epoch used it, else dropped. */
export interface StepSkippedRecord {
  readonly type: "StepSkipped";
  readonly stage: string;
  readonly generation: number;
  readonly step: number;
  readonly reason: "nonfinite";
}
export interface VersionPublishedRecord {
  readonly type: "VersionPublished";
  readonly policyVersion: number;
  readonly sha256: string;
}
/** Steps up to `keptFrom` need not be repeatable any more: the oldest checkpoint kept (or, at 0, the starting model) stands there. */
export interface CheckpointSavedRecord {
  readonly type: "CheckpointSaved";
  readonly checkpointId: string;
  readonly stage: string;
  readonly step: number;
  readonly keptFrom: number;
  readonly resume: JsonValue;
}
/** The checkpoint turned out damaged: learners are restored from the one before, and the steps since are repeated. */
export interface CheckpointQuarantinedRecord {
  readonly type: "CheckpointQuarantined";
  readonly checkpointId: string;
}
export interface ScaleSetRecord {
  readonly type: "ScaleSet";
  readonly role: WorkerRole;
  readonly desired: number;
}

export type DurableRecord =
  | EpochStartedRecord
  | StageStartedRecord
  | StageFinishedRecord
  | IterationStartedRecord
  | IterationCommittedRecord
  | CollectionOpenedRecord
  | ExperiencesAdmittedRecord
  | ExperiencesAbandonedRecord
  | ExperiencesDroppedRecord
  | StepPreparedRecord
  | GenerationOpenedRecord
  | StepCommittedRecord
  | StepSkippedRecord
  | VersionPublishedRecord
  | CheckpointSavedRecord
  | CheckpointQuarantinedRecord
  | ScaleSetRecord;
