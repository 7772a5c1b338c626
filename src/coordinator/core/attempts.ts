/** How an attempt at a step ends without a decision: its time is over, or somebody cannot do its part. */
import { attemptLimitMs, MAX_PATIENCE } from "./attempt-limit.js";
import { blame } from "./blame.js";
import type { StepMember } from "./effects.js";
import type { ApplyFailed, LearnerBehind, ReduceFailed, StepComputed } from "./events.js";
import { isLending } from "./heals.js";
import type { Outbox } from "./outbox.js";
import type { ActiveStep, CoordinatorState, Member } from "./state.js";
import { abort, isMember } from "./steps.js";

/** Its gradients are computed, or its part of a round is trained: from here on it is not the one that is waited for. */
export function noteComputed({ volatile }: CoordinatorState, member: Member, event: StepComputed): void {
  const active = volatile.activeStep;
  if (active?.generation !== event.generation || active.manifest.step !== event.step) return;
  if (isMember(active, member)) active.computed.add(member.workerId);
}

export function receiveReduceFailure(state: CoordinatorState, event: ReduceFailed, out: Outbox): void {
  const active = state.volatile.activeStep;
  if (active === null || active.generation !== event.generation || active.manifest.step !== event.step)
    return;
  abort(state, "reduceFailed", event.reason, out);
  if (event.workerId !== null) blame(state, event.workerId, event.reason, out);
}

/**
 * The step took too long. To blame is whoever the others waited for. While none has voted the same may take as long
 * again, so this stage's attempts get twice the time from here on: learners whose lease runs are alive.
 */
export function expireStep(state: CoordinatorState, out: Outbox): void {
  const { volatile } = state;
  const active = volatile.activeStep;
  if (active === null || volatile.nowMs < active.deadlineMs) return;
  const { late, missing } = lateMembers(active);
  const triedMs = attemptLimitMs(state, active.isTraining);
  if (active.votes.size === 0) volatile.stepPatience = Math.min(2 * volatile.stepPatience, MAX_PATIENCE);
  const nextMs = attemptLimitMs(state, active.isTraining);
  const longer = nextMs > triedMs ? `; the next attempt may take ${nextMs / 1000} s` : "";
  const silent = late.length > 0 ? late : active.members;
  // Who hands its state to another begins after that; it is given up when that takes too long (LearnerSilent).
  const isExcused = ({ incarnation }: StepMember): boolean => isLending(state, incarnation);
  const isCounted = late.length > 0 ? !late.every(isExcused) : !silent.some(isExcused);
  const names = silent.map(({ workerId }) => workerId).join(", ");
  abort(state, "timeout", `no ${missing} from ${names} within ${triedMs / 1000} s${longer}`, out, isCounted);
  for (const member of late)
    if (!isExcused(member)) blame(state, member.workerId, `its ${missing} did not come in time`, out);
}

/**
 * Nobody can vote before the last part is there. Nobody is late as long as nobody with something to do is through: the
 * time was too short for all of them.
 */
function lateMembers({ members, votes, computed }: ActiveStep): {
  readonly late: readonly StepMember[];
  readonly missing: "vote" | "gradients";
} {
  if (votes.size > 0)
    return { late: members.filter(({ workerId }) => !votes.has(workerId)), missing: "vote" };
  const isTimeEnough = members.some(({ workerId, shardCount }) => shardCount > 0 && computed.has(workerId));
  const late = members.filter(({ workerId }) => !computed.has(workerId));
  return isTimeEnough && late.length > 0 ? { late, missing: "gradients" } : { late: [], missing: "vote" };
}

/** A member has missed a commit: it is brought to the group's step before the generation is formed again. */
export function receiveBehind(
  state: CoordinatorState,
  member: Member,
  event: LearnerBehind,
  out: Outbox,
): void {
  const active = state.volatile.activeStep;
  if (active === null || active.generation !== event.generation || !isMember(active, member)) return;
  abort(state, "memberBehind", `${member.workerId} stands at step ${event.appliedStep}`, out);
  const isUsable = event.appliedStep >= 0 && event.appliedStep <= state.durable.finishedStep;
  member.step = isUsable && event.appliedStep !== member.step ? event.appliedStep : -1;
}

/**
 * A committed step that a learner could not apply: its state is lost, it copies another's. Where the numbers are to blame
 * it would be the same again everywhere; what else it is may pass, but not for ever.
 */
export function receiveApplyFailure(
  state: CoordinatorState,
  member: Member,
  event: ApplyFailed,
  out: Outbox,
): void {
  const { volatile, durable, config } = state;
  const { step, code, reason } = event;
  if (event.generation > durable.generation || step > durable.finishedStep) return;
  const active = volatile.activeStep;
  if (active !== null && isMember(active, member))
    abort(state, "memberBehind", `${member.workerId} could not apply step ${step}`, out);
  if (member.heal === null) member.step = -1;
  volatile.applyFailures += 1;
  if (code !== "NUMERIC" && volatile.applyFailures < config.maxStepAttempts) return;
  out.stop(
    code,
    `optimizer step ${step} of ${durable.stage} was committed and could not be applied, ${volatile.applyFailures} times in a row (last: ${member.workerId}: ${reason}); see that learner's log`,
  );
}
