/** The fold of the records into the durable state, live and in replay. */
import { storageError } from "../../shared/errors.js";
import { AFTER_DAMAGE } from "../after-damage.js";
import type { ExperienceId } from "../../rl/types.js";
import {
  hashAfter,
  keptCheckpoints,
  type DurableState,
  type ExperienceEntry,
  type ExperienceStatus,
  type SavedCheckpoint,
} from "./durable.js";
import type { DurableRecord } from "./records.js";
import { isListed, releasable } from "./retention.js";

/** Folds one record into the state. Throws STORAGE when the record cannot follow the state: the journal is damaged. */
export function applyRecord(state: DurableState, record: DurableRecord): void {
  switch (record.type) {
    case "EpochStarted":
      require(record.epoch > state.epoch, record, `epoch ${state.epoch} is already open`);
      state.epoch = record.epoch;
      state.config = record.config ?? state.config;
      return;
    case "StageStarted":
      require(state.stage === null, record, `stage ${state.stage} is still open`);
      state.stage = record.stage;
      state.minibatchesPerStep = record.minibatchesPerStep ?? null;
      state.finishedStep = 0;
      state.consecutiveSkips = 0;
      state.holders = [];
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
      state.olderCheckpoints = [];
      state.keptFrom = 0;
      forget(state, () => true);
      return;
    case "IterationStarted":
      state.iteration = record.iteration;
      state.promptCursor = record.promptCursor;
      return;
    case "IterationCommitted":
      require(record.iteration >
        state.committedIteration, record, `iteration ${state.committedIteration} is committed`);
      release(state, { committedIteration: record.iteration });
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
    case "ExperiencesAdmitted":
      record.experienceIds.forEach((id, i) => {
        const entry = expectStatus(state, record, id, "open");
        entry.status = "buffered";
        entry.policyVersion = record.policyVersion;
        entry.bytes = record.bytes[i];
        state.counts.open -= 1;
        state.counts.admitted += 1;
        state.counts.buffered += 1;
        state.counts.bufferedBytes += entry.bytes;
      });
      return;
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
    case "CheckpointQuarantined":
      quarantine(state, record);
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
  const leftOut = new Set(isCommitted ? record.leftOut : []);
  for (const id of prepared.experienceIds) {
    const entry = expectStatus(state, record, id, "buffered");
    entry.listings += 1;
    if (isCommitted && !leftOut.has(id)) entry.uses += 1;
    if (!prepared.isFinalUse) continue;
    if (entry.uses === 0) drop(state, id, entry, leftOut.has(id) ? "leftOut" : "skippedStep");
    else {
      entry.status = "trained";
      state.counts.trained += 1;
      increment(state.counts.trainedByStaleness, String(state.policyVersion - entry.policyVersion));
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
  if (record.type === "StepCommitted") {
    state.committedSteps += 1;
    state.consecutiveSkips = 0;
    state.holders = record.holders ?? [];
  } else {
    state.skippedSteps += 1;
    state.consecutiveSkips += 1;
  }
}

function saveCheckpoint(state: DurableState, record: DurableRecord & { type: "CheckpointSaved" }): void {
  require(record.stage === state.stage, record, `the open stage is ${state.stage}`);
  require(record.step <= state.finishedStep, record, `step ${state.finishedStep} is the last finished one`);
  const older = keptCheckpoints(state);
  release(state, { keptFrom: record.keptFrom });
  const checkpoint = {
    checkpointId: record.checkpointId,
    stage: record.stage,
    step: record.step,
    hash: hashAfter(state, record.step),
    resume: record.resume,
  };
  state.olderCheckpoints = older.filter(({ step }) => step >= record.keptFrom && step < record.step);
  state.checkpoint = checkpoint;
  state.keptFrom = record.keptFrom;
  state.manifests = state.manifests.filter((manifest) => manifest.step > record.keptFrom);
}

function quarantine(state: DurableState, record: DurableRecord & { type: "CheckpointQuarantined" }): void {
  const isOther = ({ checkpointId }: SavedCheckpoint): boolean => checkpointId !== record.checkpointId;
  state.olderCheckpoints = state.olderCheckpoints.filter(isOther);
  if (state.checkpoint !== null && !isOther(state.checkpoint))
    state.checkpoint = state.olderCheckpoints.pop() ?? null;
}

function release(state: DurableState, when: Parameters<typeof releasable>[1]): void {
  for (const id of releasable(state, when)) state.retained.delete(id);
}

function drop(state: DurableState, id: ExperienceId, entry: ExperienceEntry, reason: string): void {
  entry.status = "dropped";
  increment(state.counts.dropped, reason);
  unbuffer(state, id, entry);
}

/** Leaves the buffer; whether the payload stays is for retention.ts to say. */
function unbuffer(state: DurableState, id: ExperienceId, entry: ExperienceEntry): void {
  state.counts.buffered -= 1;
  state.counts.bufferedBytes -= entry.bytes;
  if (isListed(entry)) state.retained.add(id);
}

function forget(state: DurableState, isOver: (entry: ExperienceEntry) => boolean): void {
  for (const [id, entry] of state.experiences) {
    if (!isOver(entry)) continue;
    if (entry.status === "open" || entry.status === "buffered") {
      throw storageError(
        `journal forgets experience ${id} while it is ${entry.status}: the journal is damaged; ${AFTER_DAMAGE}`,
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
    `journal record ${record.type} cannot follow the state before it (${why}): the journal is damaged; ${AFTER_DAMAGE}`,
  );
}
