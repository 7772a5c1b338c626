/**
 * The durable state: what a restarted coordinator must know. It changes only through `applyRecord`, so a replayed
 * journal gives exactly the state that was live.
 *
 * Invariants (checked by test/unit/coordinator/core/ledger.test.ts and by the simulator):
 *   requested = open + abandoned + admitted        admitted = trained + dropped + buffered
 *   step numbers of a stage are contiguous; generation and epoch only grow
 *   an id is admitted at most once for the life of the run: ids of committed iterations are forgotten only together
 *   with the permission to ask for them
 */
import { storageError } from "../../shared/errors.js";
import type { ExperienceId } from "../../rl/types.js";
import type { JsonValue, Role, TaskRequest } from "./events.js";
import type { DurableRecord } from "./records.js";

export type ExperienceStatus = "open" | "buffered" | "trained" | "dropped" | "abandoned";

export interface ExperienceEntry {
  status: ExperienceStatus;
  iteration: number;
  /** Version that sampled it; -1 while open. */
  policyVersion: number;
  bytes: number;
  /** Finished steps, committed or skipped, that listed it. */
  listings: number;
  /** Committed steps among them. */
  uses: number;
  /** Last committed step that used it; 0 when none. */
  lastUsedStep: number;
}

export interface Collection {
  readonly iteration: number;
  readonly policyVersion: number;
  readonly tasks: readonly TaskRequest[];
}

/** Everything needed to do a step again. */
export interface StepManifest {
  readonly step: number;
  readonly experienceIds: readonly ExperienceId[];
  readonly input: JsonValue;
  readonly shardCount: number;
  readonly isFinalUse: boolean;
}
export interface PreparedStep extends StepManifest {
  readonly generation: number;
}
export interface FinishedStep extends StepManifest {
  readonly generation: number;
  readonly outcome: "committed" | "skipped";
  readonly hash: string;
}

export interface LedgerCounts {
  requested: number;
  open: number;
  admitted: number;
  buffered: number;
  bufferedBytes: number;
  trained: number;
  dropped: Record<string, number>;
  abandoned: Record<string, number>;
}

export interface SavedCheckpoint {
  readonly checkpointId: string;
  readonly stage: string;
  readonly step: number;
  /** Hash voted for that step; "" when not known. */
  readonly hash: string;
  readonly resume: JsonValue;
}

export interface DurableState {
  epoch: number;
  /** Highest generation ever opened. */
  generation: number;
  stage: string | null;
  finishedStages: string[];
  /** Last finished (committed or skipped) step of the stage; 0 before the first. */
  finishedStep: number;
  committedSteps: number;
  skippedSteps: number;
  consecutiveSkips: number;
  prepared: PreparedStep | null;
  /** Finished steps after the stage's newest checkpoint, ascending. */
  manifests: FinishedStep[];
  policyVersion: number;
  policySha256: string;
  /** Last iteration started and committed; -1 before the first. */
  iteration: number;
  committedIteration: number;
  promptCursor: number;
  resume: JsonValue;
  collections: Map<number, Collection>;
  experiences: Map<ExperienceId, ExperienceEntry>;
  /** Trained or dropped ids whose payload a replay after the newest checkpoint would read -> last step that used it. */
  retained: Map<ExperienceId, number>;
  counts: LedgerCounts;
  checkpoint: SavedCheckpoint | null;
  desired: Record<Role, number | null>;
}

export function emptyDurableState(): DurableState {
  return {
    epoch: 0,
    generation: 0,
    stage: null,
    finishedStages: [],
    finishedStep: 0,
    committedSteps: 0,
    skippedSteps: 0,
    consecutiveSkips: 0,
    prepared: null,
    manifests: [],
    policyVersion: -1,
    policySha256: "",
    iteration: -1,
    committedIteration: -1,
    promptCursor: 0,
    resume: null,
    collections: new Map(),
    experiences: new Map(),
    retained: new Map(),
    counts: {
      requested: 0,
      open: 0,
      admitted: 0,
      buffered: 0,
      bufferedBytes: 0,
      trained: 0,
      dropped: {},
      abandoned: {},
    },
    checkpoint: null,
    desired: { rollout: null, learner: null },
  };
}

/** Folds one record into the state. Throws STORAGE when the record cannot follow the state: the journal is damaged. */
export function applyRecord(state: DurableState, record: DurableRecord): void {
  switch (record.type) {
    case "EpochStarted":
      require(record.epoch > state.epoch, record, `epoch ${state.epoch} is already open`);
      state.epoch = record.epoch;
      return;
    case "StageStarted":
      require(state.stage === null, record, `stage ${state.stage} is still open`);
      state.stage = record.stage;
      state.finishedStep = 0;
      state.consecutiveSkips = 0;
      return;
    case "StageFinished":
      require(state.stage === record.stage, record, `the open stage is ${state.stage}`);
      state.stage = null;
      state.finishedStages.push(record.stage);
      state.prepared = null;
      state.manifests = [];
      state.collections.clear();
      state.retained.clear();
      state.checkpoint = null;
      forget(state, () => true);
      return;
    case "IterationStarted":
      state.iteration = record.iteration;
      state.promptCursor = record.promptCursor;
      return;
    case "IterationCommitted":
      require(record.iteration >
        state.committedIteration, record, `iteration ${state.committedIteration} is committed`);
      state.committedIteration = record.iteration;
      state.promptCursor = record.promptCursor;
      state.resume = record.resume;
      for (const iteration of state.collections.keys()) {
        if (iteration <= record.iteration) state.collections.delete(iteration);
      }
      forget(state, (entry) => entry.iteration <= record.iteration);
      return;
    case "CollectionOpened":
      openCollection(state, record);
      return;
    case "ExperienceAdmitted": {
      const entry = expectStatus(state, record, record.experienceId, "open");
      entry.status = "buffered";
      entry.policyVersion = record.policyVersion;
      entry.bytes = record.bytes;
      state.counts.open -= 1;
      state.counts.admitted += 1;
      state.counts.buffered += 1;
      state.counts.bufferedBytes += record.bytes;
      return;
    }
    case "ExperiencesAbandoned":
      for (const id of record.experienceIds) {
        expectStatus(state, record, id, "open").status = "abandoned";
        state.counts.open -= 1;
        increment(state.counts.abandoned, record.reason);
      }
      return;
    case "ExperiencesDropped":
      for (const id of record.experienceIds)
        drop(state, id, expectStatus(state, record, id, "buffered"), record.reason);
      return;
    case "StepPrepared":
      require(record.stage === state.stage, record, `the open stage is ${state.stage}`);
      require(record.step ===
        state.finishedStep + 1, record, `step ${state.finishedStep} is the last finished one`);
      require(record.generation > state.generation, record, `generation ${state.generation} is used`);
      state.generation = record.generation;
      state.prepared = {
        generation: record.generation,
        step: record.step,
        experienceIds: record.experienceIds,
        input: record.input,
        shardCount: record.shardCount,
        isFinalUse: record.isFinalUse,
      };
      return;
    case "GenerationOpened":
      require(record.generation > state.generation, record, `generation ${state.generation} is used`);
      state.generation = record.generation;
      return;
    case "StepCommitted":
    case "StepSkipped":
      finishStep(state, record);
      return;
    case "VersionPublished":
      require(record.policyVersion >
        state.policyVersion, record, `version ${state.policyVersion} is published`);
      state.policyVersion = record.policyVersion;
      state.policySha256 = record.sha256;
      return;
    case "CheckpointSaved":
      saveCheckpoint(state, record);
      return;
    case "ScaleSet":
      state.desired[record.role] = record.desired;
      return;
    default:
      record satisfies never;
      throw storageError(
        `journal record of unknown type ${JSON.stringify((record as { type?: unknown }).type)}: written by a newer release; use that release to resume this run`,
      );
  }
}

function openCollection(state: DurableState, record: DurableRecord & { type: "CollectionOpened" }): void {
  require(!state.collections.has(record.iteration), record, `collection ${record.iteration} is already open`);
  state.collections.set(record.iteration, {
    iteration: record.iteration,
    policyVersion: record.policyVersion,
    tasks: record.tasks,
  });
  for (const task of record.tasks) {
    for (const id of task.experienceIds) {
      require(!state.experiences.has(id), record, `experience ${id} was asked for before`);
      state.experiences.set(id, {
        status: "open",
        iteration: record.iteration,
        policyVersion: -1,
        bytes: 0,
        listings: 0,
        uses: 0,
        lastUsedStep: 0,
      });
      state.counts.requested += 1;
      state.counts.open += 1;
    }
  }
}

function finishStep(
  state: DurableState,
  record: DurableRecord & { type: "StepCommitted" | "StepSkipped" },
): void {
  const prepared = state.prepared;
  if (prepared === null || prepared.step !== record.step || prepared.generation !== record.generation) {
    throw damaged(record, `the prepared step is ${prepared?.step} of generation ${prepared?.generation}`);
  }
  const isCommitted = record.type === "StepCommitted";
  for (const id of prepared.experienceIds) {
    const entry = expectStatus(state, record, id, "buffered");
    entry.listings += 1;
    if (isCommitted) {
      entry.uses += 1;
      entry.lastUsedStep = record.step;
    }
    if (!prepared.isFinalUse) continue;
    if (entry.uses === 0) drop(state, id, entry, "skippedStep");
    else {
      entry.status = "trained";
      state.counts.trained += 1;
      unbuffer(state, id, entry);
    }
  }
  state.manifests.push({
    ...prepared,
    outcome: isCommitted ? "committed" : "skipped",
    hash: isCommitted ? record.hash : "",
  });
  state.prepared = null;
  state.finishedStep = record.step;
  if (isCommitted) {
    state.committedSteps += 1;
    state.consecutiveSkips = 0;
  } else {
    state.skippedSteps += 1;
    state.consecutiveSkips += 1;
  }
}

function saveCheckpoint(state: DurableState, record: DurableRecord & { type: "CheckpointSaved" }): void {
  require(record.stage === state.stage, record, `the open stage is ${state.stage}`);
  require(record.step <= state.finishedStep, record, `step ${state.finishedStep} is the last finished one`);
  const known = state.manifests.find((manifest) => manifest.step === record.step);
  state.checkpoint = {
    checkpointId: record.checkpointId,
    stage: record.stage,
    step: record.step,
    hash: known?.hash ?? (state.checkpoint?.step === record.step ? state.checkpoint.hash : ""),
    resume: record.resume,
  };
  state.manifests = state.manifests.filter((manifest) => manifest.step > record.step);
  for (const [id, lastUsedStep] of state.retained) if (lastUsedStep <= record.step) state.retained.delete(id);
}

function drop(state: DurableState, id: ExperienceId, entry: ExperienceEntry, reason: string): void {
  entry.status = "dropped";
  increment(state.counts.dropped, reason);
  unbuffer(state, id, entry);
}

/** Leaves the buffer; a payload that a replay would read stays until a checkpoint covers its last use. */
function unbuffer(state: DurableState, id: ExperienceId, entry: ExperienceEntry): void {
  state.counts.buffered -= 1;
  state.counts.bufferedBytes -= entry.bytes;
  if (isReplayed(state, entry)) state.retained.set(id, entry.lastUsedStep);
}

/** Whether doing the steps after the newest checkpoint again would read this experience's payload. */
export function isReplayed(state: DurableState, entry: ExperienceEntry): boolean {
  return entry.lastUsedStep > (state.checkpoint?.step ?? 0);
}

function forget(state: DurableState, isOver: (entry: ExperienceEntry) => boolean): void {
  for (const [id, entry] of state.experiences) {
    if (!isOver(entry)) continue;
    if (entry.status === "open" || entry.status === "buffered") {
      throw storageError(
        `journal forgets experience ${id} while it is ${entry.status}: the journal is damaged`,
      );
    }
    state.experiences.delete(id);
  }
}

function expectStatus(
  state: DurableState,
  record: DurableRecord,
  id: ExperienceId,
  status: ExperienceStatus,
): ExperienceEntry {
  const entry = state.experiences.get(id);
  if (entry?.status !== status) {
    throw damaged(record, `experience ${id} is ${entry?.status ?? "not known"}, not ${status}`);
  }
  return entry;
}

function increment(counts: Record<string, number>, reason: string): void {
  counts[reason] = (counts[reason] ?? 0) + 1;
}

function require(isTrue: boolean, record: DurableRecord, why: string): void {
  if (!isTrue) throw damaged(record, why);
}

function damaged(record: DurableRecord, why: string) {
  return storageError(
    `journal record ${record.type} cannot follow the state before it (${why}): the journal is damaged; resume from the last checkpoint in a new run directory`,
  );
}
