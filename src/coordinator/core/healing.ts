/**
 * Keeps the learners in step. The *group* is the learners at `groupStep`, and only they take part in a step. Between
 * steps every other learner is healed: from a member of the group, or, when the group is lost, from the newest
 * checkpoint (the stage's starting model before the first), after which the journalled steps since are done again.
 * Learners that are ready wait for one that is copying, up to a point, and then train on without it (heals.ts).
 *
 * A finished step is repeated only when nobody is left who holds its result: whoever is known to have voted for it is
 * waited for, for a lease, and a learner that voted but never heard the commit applies what it voted for. A learner that
 * leaves is copied from first, when it alone holds the newest state (lifecycle.ts).
 */
import { learnersInService } from "./blame.js";
import { hashAfter } from "./durable.js";
import type { HealSource } from "./effects.js";
import type { StatesDiffer } from "./events.js";
import { holdsUp, startHeal } from "./heals.js";
import type { Outbox } from "./outbox.js";
import type { CoordinatorState, Member } from "./state.js";
import { abort, startReplay, startRequestedStep } from "./steps.js";

/** Does whatever can be done now: release, regroup, heal, pause or resume, replay, start the requested step. */
export function advanceLearning(state: CoordinatorState, out: Outbox): void {
  const { volatile, durable, config } = state;
  if (volatile.activeStep !== null || durable.stage === null) return;
  for (const learner of volatile.learners) applyVoted(state, learner, out);
  const learners = learnersInService(state);
  if (!formGroup(state, learners)) healFromStorage(state, learners, out);
  else healFromGroup(state, learners, out);

  const group = learners.filter((learner) => isInGroup(state, learner));
  // Also those that stay out for a while (blame.ts): others must not leave for them.
  for (const learner of volatile.learners) if (learner.state !== "draining") learner.state = "joining";
  for (const learner of group) {
    learner.state = "ready";
    learner.lateHeals = 0;
  }
  pauseOrResume(state, group.length, out);
  if (learners.some((learner) => holdsUp(state, learner))) return;
  if (volatile.groupStep < 0 || group.length < config.minLearners || group.length === 0) return;

  while (volatile.groupStep < durable.finishedStep) {
    const manifest = durable.manifests.find((finished) => finished.step === volatile.groupStep + 1);
    if (manifest === undefined)
      return void out.stop("INTERNAL", `step ${volatile.groupStep + 1} is not in the journal`);
    if (manifest.outcome === "committed") return startReplay(state, manifest, group, out);
    skipAgain(state, manifest.step, group, out);
  }
  startRequestedStep(state, group, out);
}

const isInGroup = (state: CoordinatorState, learner: Member): boolean =>
  learner.heal === null && state.volatile.groupStep >= 0 && learner.step === state.volatile.groupStep;

/** The commit of a step was lost on its way, or its sender died: the journal tells the voter what became of it. */
function applyVoted(state: CoordinatorState, learner: Member, out: Outbox): void {
  const { voted } = learner;
  const { finishedStep } = state.durable;
  if (voted === null || learner.heal !== null) return;
  learner.voted = null;
  const isCommitted = voted.hash !== "" && hashAfter(state.durable, finishedStep) === voted.hash;
  if (voted.step !== finishedStep || learner.step !== finishedStep - 1 || !isCommitted) return;
  startHeal(state, learner, { kind: "vote", hash: voted.hash }, finishedStep, out);
}

/**
 * Chooses `groupStep`; false while no learner holds a state worth going on from. One that is about to leave takes no part
 * in a step, but what it holds counts as long as it is there.
 */
function formGroup(state: CoordinatorState, learners: readonly Member[]): boolean {
  const { volatile, durable } = state;
  let best = -1;
  let hadGroup = false;
  for (const learner of volatile.learners) {
    if (learner.heal === null) best = Math.max(best, learner.step);
    hadGroup ||= isInGroup(state, learner);
  }
  const restorable = durable.checkpoint?.step ?? 0;
  if (!hadGroup) volatile.groupStep = -1;
  if (best === durable.finishedStep || ((hadGroup || volatile.isRestoring) && best >= restorable)) {
    volatile.groupStep = best;
    volatile.regroup = null;
    volatile.isRestoring = false;
    return true;
  }
  if (learners.length === 0) {
    volatile.regroup = null;
    return false;
  }
  if (restorable === durable.finishedStep || volatile.isRestoring) return false;
  // Steps were committed after the checkpoint: wait for a learner that still holds their result.
  volatile.regroup ??= { sinceMs: volatile.nowMs, untilMs: Infinity };
  volatile.regroup.untilMs = volatile.regroup.sinceMs + regroupPatienceMs(state);
  if (volatile.nowMs < volatile.regroup.untilMs || best < restorable) return false;
  volatile.groupStep = best;
  volatile.regroup = null;
  return true;
}

function regroupPatienceMs(state: CoordinatorState): number {
  const { volatile, durable, config } = state;
  if (isAnyClosing(state)) return Infinity; // its heal has a deadline
  const isComplete = durable.holders.every((workerId) => volatile.members.has(workerId));
  return isComplete ? config.regroupMs : Math.max(config.regroupMs, config.leaseTtlMs);
}

/** Somebody needs no other learner any more to be where the journal is: it voted for that, or has the state on its way. */
function isAnyClosing({ volatile, durable }: CoordinatorState): boolean {
  return [...volatile.learners].some(
    ({ heal }) =>
      heal !== null && heal.step === durable.finishedStep && (heal.source.kind === "vote" || heal.isLent),
  );
}

function healFromStorage(state: CoordinatorState, learners: readonly Member[], out: Outbox): void {
  const { volatile, durable } = state;
  if (volatile.regroup !== null && volatile.nowMs < volatile.regroup.untilMs) return;
  if (isAnyClosing(state)) return;
  volatile.regroup = null;
  volatile.isRestoring = learners.length > 0;
  const { checkpoint } = durable;
  const source: HealSource =
    checkpoint === null ? { kind: "initial" } : { kind: "checkpoint", checkpointId: checkpoint.checkpointId };
  for (const learner of learners) {
    if (learner.heal === null) startHeal(state, learner, source, checkpoint?.step ?? 0, out);
  }
}

function healFromGroup(state: CoordinatorState, learners: readonly Member[], out: Outbox): void {
  const { volatile } = state;
  const holders = [...volatile.learners].filter((learner) => isInGroup(state, learner));
  const staying = holders.filter((holder) => holder.state !== "draining");
  const peers = staying.length > 0 ? staying : holders;
  for (const learner of learners) {
    if (learner.heal !== null || isInGroup(state, learner)) continue;
    const peer = peers[volatile.nextHealId % peers.length];
    const source: HealSource = { kind: "peer", workerId: peer.workerId, incarnation: peer.incarnation };
    startHeal(state, learner, source, volatile.groupStep, out);
  }
}

function pauseOrResume(state: CoordinatorState, readyLearners: number, out: Outbox): void {
  const { volatile, config } = state;
  const isStepDue = volatile.stepRequest !== null;
  // One is enough for what is asked between steps.
  const minLearners = volatile.isLearnerAwaited && !isStepDue ? 1 : config.minLearners;
  if (readyLearners >= minLearners) {
    volatile.noLearnersSinceMs = null;
    if (volatile.isPaused) out.send({ type: "ResumeLearning", readyLearners });
    volatile.isPaused = false;
    return;
  }
  if (!isStepDue && !volatile.isLearnerAwaited) {
    volatile.noLearnersSinceMs = null;
    return;
  }
  volatile.noLearnersSinceMs ??= volatile.nowMs;
  if (volatile.isPaused || volatile.nowMs < pauseDueMs(state)) return;
  out.send({ type: "PauseLearning", readyLearners, minLearners });
  volatile.isPaused = true;
}

/**
 * From when on it is said that learners are missing. As a stage begins they are asked before they have loaded its models,
 * and between steps one may be restarting: neither is worth a word for a lease.
 */
export function pauseDueMs({ volatile, config }: CoordinatorState): number {
  if (volatile.noLearnersSinceMs === null || volatile.isPaused) return Infinity;
  return volatile.noLearnersSinceMs + (volatile.stepRequest === null ? config.leaseTtlMs : 0);
}

/** A step that was skipped is skipped again without computing it. */
function skipAgain(state: CoordinatorState, step: number, group: readonly Member[], out: Outbox): void {
  const { volatile, durable } = state;
  const members = group.map(({ workerId, incarnation }, rank) => ({
    workerId,
    incarnation,
    rank,
    firstShard: 0,
    shardCount: 0,
  }));
  const generation = durable.generation;
  out.send({ type: "SkipStep", stage: durable.stage ?? "", generation, step, reason: "nonfinite", members });
  for (const learner of group) learner.step = step;
  volatile.groupStep = step;
}

/**
 * Something changed a state that no step explains: a fault of memory, or learners that compute differently. The minority
 * copies from the majority; without one nobody can tell who is right, and going on would train nobody knows what.
 */
export function receiveDifference(state: CoordinatorState, event: StatesDiffer, out: Outbox): void {
  const { volatile, durable } = state;
  if (event.step !== durable.finishedStep) return;
  const counts = new Map<string, number>();
  for (const { sha256 } of event.states) counts.set(sha256, (counts.get(sha256) ?? 0) + 1);
  const majority = [...counts].find(([, count]) => count * 2 > event.states.length)?.[0];
  if (majority === undefined) {
    const who = event.states.map(({ workerId, sha256 }) => `${workerId} ${sha256.slice(0, 16)}`).join(", ");
    const from = durable.checkpoint?.checkpointId ?? "the stage's starting model";
    out.stop(
      "DATA",
      `the learners hold different parameters or moments after step ${event.step} of ${durable.stage} (${who}), and no majority agrees: memory of one machine is damaged, or they are not of one kind (engine, processor); the last state they agreed on is ${from}: start another run from it (model.path), without the machine that is to blame`,
    );
    return;
  }
  for (const { workerId, sha256 } of event.states) {
    const member = volatile.members.get(workerId);
    if (sha256 !== majority && member?.role === "learner" && member.step === event.step) member.step = -1;
  }
}

/**
 * What the learner itself says it applied. For as long as a commit may take to arrive it can differ from what the
 * group believes; after that the learner is right: it is healed when behind, and a source again when ahead.
 */
export function noteAppliedStep(
  state: CoordinatorState,
  member: Member,
  appliedStep: number,
  out: Outbox,
): void {
  const { volatile, durable, config } = state;
  if (member.role !== "learner" || member.heal !== null || member.step < 0) return;
  if (appliedStep === member.step) {
    member.differsSinceMs = null;
    return;
  }
  member.differsSinceMs ??= volatile.nowMs;
  if (volatile.nowMs - member.differsSinceMs < config.leaseTtlMs) return;
  member.differsSinceMs = null;
  member.step = appliedStep >= 0 && appliedStep <= durable.finishedStep ? appliedStep : -1;
  if (volatile.activeStep?.members.some((other) => other.incarnation === member.incarnation)) {
    abort(state, "memberBehind", `${member.workerId} stands at step ${appliedStep}`, out);
  }
}
