/** What the train loop reports: stages, iterations, policy versions, checkpoints. Repeating a report is harmless. */
import type {
  CheckpointDamaged,
  CheckpointSaved,
  IterationCommitted,
  IterationStarted,
  StageStarted,
  VersionPublished,
} from "./events.js";
import { closeIterations, dropStale } from "./ledger.js";
import type { Outbox } from "./outbox.js";
import { keptCheckpoints } from "./durable.js";
import { releasable } from "./retention.js";
import type { CoordinatorState } from "./state.js";
import { abort } from "./steps.js";

/** Opens the stage at step 0, or resumes it where the journal left it. */
export function startStage(state: CoordinatorState, event: StageStarted, out: Outbox): void {
  const { durable, volatile } = state;
  const { stage, minibatchesPerStep } = event;
  if (durable.stage === stage || durable.finishedStages.includes(stage)) return;
  if (durable.stage !== null) finishStage(state, durable.stage, out);
  out.record({
    type: "StageStarted",
    stage,
    ...(minibatchesPerStep === undefined ? {} : { minibatchesPerStep }),
  });
  volatile.stepPatience = 1;
  volatile.groupStep = -1;
  volatile.regroup = null;
  volatile.isRestoring = false;
}

export function finishStage(state: CoordinatorState, stage: string, out: Outbox): void {
  const { durable, volatile } = state;
  if (durable.stage !== stage) return;
  abort(state, "stageEnded", `stage ${stage} is over`, out, false);
  volatile.stepRequest = null;
  closeIterations(state, Infinity, "stageEnd", "stageEnd", out);
  out.record({ type: "StageFinished", stage }, { deletePayloads: [...durable.retained] });
  volatile.groupStep = -1;
  volatile.regroup = null;
  volatile.isRestoring = false;
  volatile.isPaused = false;
  volatile.noLearnersSinceMs = null;
  for (const member of volatile.members.values()) {
    if (member.role !== "learner") continue;
    member.step = -1;
    member.heal = null;
    if (member.state !== "draining") member.state = "joining";
  }
}

export function startIteration(state: CoordinatorState, event: IterationStarted, out: Outbox): void {
  const { durable } = state;
  if (event.iteration <= durable.iteration) return;
  out.record({ type: "IterationStarted", iteration: event.iteration, promptCursor: event.promptCursor });
}

/** Ends the iteration: what is left of it is dropped, then its ids are forgotten (and refused from then on). */
export function commitIteration(state: CoordinatorState, event: IterationCommitted, out: Outbox): void {
  const { durable } = state;
  const { iteration, promptCursor, resume } = event;
  if (iteration <= durable.committedIteration) return;
  endSteps(state, (of) => of === iteration, out);
  closeIterations(state, iteration, "iterationEnd", "unused", out);
  const deletePayloads = releasable(durable, { committedIteration: iteration });
  out.record({ type: "IterationCommitted", iteration, promptCursor, resume }, { deletePayloads });
}

/** No iteration follows: whatever was collected for one is given up, and so is a step that was to train it. */
export function cancelCollections(state: CoordinatorState, out: Outbox): void {
  const { committedIteration } = state.durable;
  endSteps(state, (of) => of > committedIteration, out);
  closeIterations(state, Infinity, "iterationEnd", "unused", out);
}

/** Steps on experiences of these iterations are not done any more. */
function endSteps(state: CoordinatorState, isOver: (iteration: number) => boolean, out: Outbox): void {
  const { durable, volatile } = state;
  const lists = (id: string): boolean => isOver(durable.experiences.get(id)?.iteration ?? -1);
  if (volatile.activeStep?.manifest.experienceIds.some(lists))
    abort(state, "stageEnded", "its iteration ended", out, false);
  if (volatile.stepRequest?.experienceIds.some(lists)) volatile.stepRequest = null;
}

/** A newer policy: rollouts are told, and whatever it makes too stale is dropped or sampled again. */
export function publishVersion(state: CoordinatorState, event: VersionPublished, out: Outbox): void {
  const { policyVersion, sha256 } = event;
  if (policyVersion > state.durable.policyVersion) {
    out.record({ type: "VersionPublished", policyVersion, sha256 });
    dropStale(state, out);
  } else if (policyVersion < state.durable.policyVersion || sha256 !== state.durable.policySha256) {
    return;
  }
  out.send({ type: "AnnounceVersion", policyVersion, sha256 });
}

/** The steps up to the oldest kept checkpoint can be forgotten, and with them the payloads only they would read again. */
export function saveCheckpoint(state: CoordinatorState, event: CheckpointSaved, out: Outbox): void {
  const { durable, config } = state;
  const { checkpointId, stage, step, resume } = event;
  if (stage !== durable.stage || step > durable.finishedStep || step < (durable.checkpoint?.step ?? 0))
    return;
  const older = keptCheckpoints(durable).map((checkpoint) => checkpoint.step);
  // The starting model is the stage's checkpoint 0.
  const steps = new Set([...(durable.keptFrom === 0 ? [0] : []), ...older, step]);
  const keptFrom = [...steps].slice(-config.keptCheckpoints)[0];
  const deletePayloads = releasable(durable, { keptFrom });
  out.record({ type: "CheckpointSaved", checkpointId, stage, step, keptFrom, resume }, { deletePayloads });
}

/** Learners are restored from the next older checkpoint, or from the starting model while all steps are known; with neither the run ends. */
export function quarantineCheckpoint(state: CoordinatorState, event: CheckpointDamaged, out: Outbox): void {
  const { durable, volatile } = state;
  const { checkpointId } = event;
  const kept = keptCheckpoints(durable);
  if (!kept.some((checkpoint) => checkpoint.checkpointId === checkpointId)) return;
  if (kept.length === 1 && durable.keptFrom > 0) return out.stop("DATA", event.reason);
  out.record({ type: "CheckpointQuarantined", checkpointId });
  for (const member of volatile.members.values()) {
    const source = member.heal?.source;
    if (source?.kind === "checkpoint" && source.checkpointId === checkpointId) member.heal = null;
  }
  out.send({ type: "SetAsideCheckpoint", checkpointId, reason: event.reason });
}
