/**
 * The decision core: `reduce(state, event, nowMs) -> effects`. Deterministic: no I/O, no clock, no randomness.
 *
 * Invariants, for every order of events, losses and restarts:
 *   1. An experience id is admitted at most once for the life of the run; admitted = trained + dropped + buffered.
 *   2. The buffer never holds more than `capacityExperiences` or `capacityBytes`; nothing is trained with a policy
 *      more than `maxStalenessVersions` old.
 *   3. Steps of a stage finish in order, without gaps, each once; a finished step is never lost.
 *   4. A step commits only if every member of one (generation, step) voted finite with the same hash.
 *   5. Only a live incarnation of this epoch changes anything; every other signature is fenced.
 *   6. A refused event changes no durable state.
 *   7. While work is due some deadline is pending (deadlines.ts): it goes on, or the run stops with a diagnosis.
 */
import { noteComputed, receiveApplyFailure, receiveBehind, receiveReduceFailure } from "./attempts.js";
import type { Effect } from "./effects.js";
import { dispatchTasks } from "./dispatch.js";
import { receiveEvaluation, requestEvaluation } from "./evaluations.js";
import type { CoordinatorEvent, WorkerEvent } from "./events.js";
import { advanceLearning, noteAppliedStep, receiveDifference } from "./healing.js";
import { receiveHealed, receiveHealFailed, receiveLent } from "./heals.js";
import {
  addCollectionTasks,
  dropStale,
  openWaitingCollections,
  receiveExperiences,
  requestCollection,
} from "./ledger.js";
import {
  expireAll,
  giveUpLearner,
  loseMember,
  noteMissingRollouts,
  registerWorker,
  releaseDrained,
} from "./lifecycle.js";
import { fence, notePolicyHeld, renewMember, setCredits, signer, startDraining } from "./members.js";
import { Outbox } from "./outbox.js";
import { failAttempt } from "./poison.js";
import {
  cancelCollections,
  commitIteration,
  finishStage,
  publishVersion,
  quarantineCheckpoint,
  saveCheckpoint,
  startIteration,
  startStage,
} from "./progress.js";
import type { CoordinatorState, Member } from "./state.js";
import { closeRound } from "./rounds.js";
import { receiveVote, requestStep } from "./steps.js";
import { extendLeases, leaseOf } from "./tasks.js";

/** Mutates `state` (its only owner) and returns what the shell must do, in order. A stopped run ignores everything. */
export function reduce(state: CoordinatorState, event: CoordinatorEvent, nowMs: number): Effect[] {
  const { volatile } = state;
  if (volatile.stopped !== null) return [];
  volatile.nowMs = Math.max(volatile.nowMs, nowMs);
  const out = new Outbox(state);
  handle(state, event, out);
  settle(state, out);
  return out.effects();
}

/** What may have become possible: room for a collection, a worker for a task, a group for a step. */
function settle(state: CoordinatorState, out: Outbox): void {
  if (state.volatile.stopped !== null) return;
  openWaitingCollections(state, out);
  releaseDrained(state, out);
  advanceLearning(state, out);
  dispatchTasks(state, out);
  noteMissingRollouts(state);
}

function handle(state: CoordinatorState, event: CoordinatorEvent, out: Outbox): void {
  const { durable, volatile } = state;
  switch (event.type) {
    case "CoordinatorStarted":
      out.record({
        type: "EpochStarted",
        epoch: durable.epoch + 1,
        ...(event.config === undefined ? {} : { config: event.config }),
      });
      for (const iteration of durable.collections.keys()) addCollectionTasks(state, iteration);
      dropStale(state, out); // the bound may have been lowered
      return;
    case "RunClosing":
      volatile.isClosing = true;
      return;
    case "Tick":
      return expireAll(state, out);
    case "WorkerRegistered":
      return registerWorker(state, event, out);
    case "PolicyHeld":
      return notePolicyHeld(state, event);
    case "StageStarted":
      return startStage(state, event, out);
    case "StageFinished":
      return finishStage(state, event.stage, out);
    case "IterationStarted":
      return startIteration(state, event, out);
    case "IterationCommitted":
      return commitIteration(state, event, out);
    case "CollectRequested":
      return requestCollection(state, event, out);
    case "CollectionsCancelled":
      return cancelCollections(state, out);
    case "EvaluationRequested":
      return requestEvaluation(state, event, out);
    case "StepRequested":
      return requestStep(state, event, out);
    case "ReduceFailed":
      return receiveReduceFailure(state, event, out);
    case "LearnerSilent":
      return giveUpLearner(state, event, out);
    case "LearnersAwaited":
      volatile.isLearnerAwaited = event.isAwaited;
      return;
    case "StatesDiffer":
      return receiveDifference(state, event, out);
    case "RoundTrained":
      return closeRound(state, event, out);
    case "VersionPublished":
      return publishVersion(state, event, out);
    case "CheckpointSaved":
      return saveCheckpoint(state, event, out);
    case "CheckpointDamaged":
      return quarantineCheckpoint(state, event, out);
    case "ScaleRequested":
      if (durable.desired[event.role] === event.desired) return;
      out.record({ type: "ScaleSet", role: event.role, desired: event.desired });
      out.send({ type: "DesiredScaleChanged", role: event.role, desired: event.desired });
      return;
    default: {
      const finishedBefore = durable.finishedStep;
      handleWorker(state, event, out);
      // Between two uses of an experience the policy may have moved on.
      if (durable.finishedStep !== finishedBefore && volatile.stopped === null) dropStale(state, out);
      return;
    }
  }
}

function handleWorker(state: CoordinatorState, event: WorkerEvent, out: Outbox): void {
  const member = signer(state, event);
  if (member === null) {
    state.volatile.counters.fencedEvents += 1;
    if (event.type === "ExperiencesReceived") receiveExperiences(state, null, event, out);
    else if (event.type === "EvaluationReceived") receiveEvaluation(state, null, event, out);
    // A departure needs no answer; anything else comes from a process that believes it is a member.
    if (event.type === "WorkerDisconnected" || event.type === "WorkerLeft") return;
    fence(event.workerId, event.incarnation, "replaced, lost, or of an older epoch; register again", out);
    return;
  }
  switch (event.type) {
    case "WorkerHeartbeat":
      renewMember(state, member, event, out);
      extendLeases(state, event);
      if (event.appliedStep !== undefined) noteAppliedStep(state, member, event.appliedStep, out);
      return;
    case "WorkerDisconnected":
      return loseMember(state, member, "connection", out);
    case "WorkerLeft":
      return loseMember(state, member, "drained", out);
    case "WorkerDraining":
      return startDraining(state, member);
    case "WorkerReady":
      return setCredits(state, member, event);
    case "ExperiencesReceived":
      return receiveExperiences(state, member, event, out);
    case "EvaluationReceived":
      return receiveEvaluation(state, member, event, out);
    case "TaskFinished":
    case "TaskFailed":
      return endAttempt(state, member, event.taskId, event.attempt, out);
    case "StepComputed":
      return noteComputed(state, member, event);
    case "StepVote":
      return receiveVote(state, member, event, out);
    case "StepApplied":
      if (event.stage !== state.durable.stage) return;
      state.volatile.applyFailures = 0;
      return noteAppliedStep(state, member, event.step, out);
    case "ApplyFailed":
      return receiveApplyFailure(state, member, event, out);
    case "LearnerBehind":
      return receiveBehind(state, member, event, out);
    case "StateLent":
      return receiveLent(member, event);
    case "LearnerHealed":
      return receiveHealed(state, member, event, out);
    case "LearnerHealFailed":
      return receiveHealFailed(state, member, event, out);
    default:
      event satisfies never;
  }
}

/** The holder says it is through; ids that are still open make it a failure of this attempt. */
function endAttempt(
  state: CoordinatorState,
  member: Member,
  taskId: string,
  attempt: number,
  out: Outbox,
): void {
  const task = state.volatile.tasks.get(taskId);
  const lease = leaseOf(task, member.incarnation);
  if (task === undefined || lease?.attempt !== attempt) return;
  failAttempt(state, task, lease, "failed", false, out);
}
