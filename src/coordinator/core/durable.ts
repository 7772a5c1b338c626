/**
 * The durable state: what a restarted coordinator must know. It changes only through `applyRecord`
 * (apply-record.ts), so a replayed journal gives exactly the state that was live.
 *
 * Invariants (checked by test/unit/coordinator/core/ledger.test.ts and by the simulator):
 *   requested = open + abandoned + admitted        admitted = trained + dropped + buffered
 *   step numbers of a stage are contiguous; generation and epoch only grow
 *   an id is admitted at most once for the life of the run: ids of committed iterations are forgotten only together
 *   with the permission to ask for them
 */
import type { ExperienceId } from "../../rl/types.js";
import type { JsonValue, TaskRequest } from "./events.js";
import { RetainedIds } from "./retained-ids.js";
import type { WorkerRole } from "../../shared/roles.js";

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
  /** The trained ones by how many versions the policy was ahead of the one that sampled them. */
  trainedByStaleness: Record<string, number>;
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
  /** The run's settings; null when they are not known. */
  config: JsonValue;
  /** Highest generation ever opened. */
  generation: number;
  stage: string | null;
  /** Minibatches that make one step of the stage; null when not known. */
  minibatchesPerStep: number | null;
  finishedStages: string[];
  /** Last finished (committed or skipped) step of the stage; 0 before the first. */
  finishedStep: number;
  committedSteps: number;
  skippedSteps: number;
  consecutiveSkips: number;
  /** Worker ids of those who voted for the last committed step. */
  holders: readonly string[];
  prepared: PreparedStep | null;
  /** Finished steps after `keptFrom`, ascending: what a restored learner does again. */
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
  /** Trained or dropped ids whose payload may still be read (retention.ts). */
  retained: RetainedIds;
  counts: LedgerCounts;
  /** The stage's newest; null before the first. */
  checkpoint: SavedCheckpoint | null;
  /** Kept for the case that a newer one turns out damaged, ascending by step. */
  olderCheckpoints: SavedCheckpoint[];
  /** Step of the oldest state the stage can go on from: a checkpoint, or 0 for the starting model. */
  keptFrom: number;
  desired: Record<WorkerRole, number | null>;
}

export function emptyDurableState(): DurableState {
  return {
    epoch: 0,
    config: null,
    generation: 0,
    stage: null,
    minibatchesPerStep: null,
    finishedStages: [],
    finishedStep: 0,
    committedSteps: 0,
    skippedSteps: 0,
    consecutiveSkips: 0,
    holders: [],
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
    retained: new RetainedIds(),
    counts: {
      requested: 0,
      open: 0,
      admitted: 0,
      buffered: 0,
      bufferedBytes: 0,
      trained: 0,
      trainedByStaleness: {},
      dropped: {},
      abandoned: {},
    },
    checkpoint: null,
    olderCheckpoints: [],
    keptFrom: 0,
    desired: { rollout: null, learner: null },
  };
}

/** Ascending by step. */
export function keptCheckpoints({ checkpoint, olderCheckpoints }: DurableState): SavedCheckpoint[] {
  return checkpoint === null ? [] : [...olderCheckpoints, checkpoint];
}

/** Digest of the learners' state after `step`; a skipped step leaves it as it was. "" when not known. */
export function hashAfter(state: DurableState, step: number): string {
  const first = state.manifests[0]?.step ?? Infinity;
  for (let at = step; at >= first; at--) {
    const manifest = state.manifests[at - first];
    if (manifest === undefined) return "";
    if (manifest.outcome === "committed") return manifest.hash;
  }
  const before = Math.min(step, first - 1);
  return keptCheckpoints(state).find((checkpoint) => checkpoint.step === before)?.hash ?? "";
}
