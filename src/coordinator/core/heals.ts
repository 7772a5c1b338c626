/**
 * One learner's copy of parameters: ordered, finished, failed, or not finished in time. Whom it copies from, and why, is
 * decided in healing.ts.
 *
 * Learners that are ready wait for it, since what it copies is old once they have trained on: `healPatienceMs`, and twice
 * as long after each copy that came too late, so that it catches up however long a copy takes. A copy is given up after
 * `healTimeoutMs`.
 */
import type { HealSource } from "./effects.js";
import type { LearnerHealed, LearnerHealFailed, StateLent } from "./events.js";
import { fence, removeMember, usableStep } from "./members.js";
import type { Outbox } from "./outbox.js";
import type { CoordinatorState, Member } from "./state.js";

export function startHeal(
  state: CoordinatorState,
  learner: Member,
  source: HealSource,
  step: number,
  out: Outbox,
): void {
  const { volatile, durable, config } = state;
  const { nowMs } = volatile;
  const healId = volatile.nextHealId++;
  learner.step = -1;
  learner.heal = {
    healId,
    source,
    step,
    isLent: false,
    holdsUpUntilMs: nowMs + config.healPatienceMs * 2 ** learner.lateHeals,
    deadlineMs: nowMs + config.healTimeoutMs,
  };
  volatile.counters.heals += 1;
  const { workerId, incarnation } = learner;
  out.send({ type: "HealLearner", workerId, incarnation, healId, stage: durable.stage ?? "", step, source });
}

/** Whether the others wait for the learner. */
export const holdsUp = ({ volatile }: CoordinatorState, { heal }: Member): boolean =>
  heal !== null && volatile.nowMs < heal.holdsUpUntilMs;

/** Whether another waits for this learner's state. A learner does one thing at a time: a step waits for that. */
export const isLending = ({ volatile }: CoordinatorState, incarnation: number): boolean =>
  [...volatile.learners].some(
    ({ heal }) => heal?.source.kind === "peer" && heal.source.incarnation === incarnation && !heal.isLent,
  );

export function receiveLent(member: Member, event: StateLent): void {
  if (member.heal?.healId === event.healId) member.heal.isLent = true;
}

export function receiveHealed(
  state: CoordinatorState,
  member: Member,
  event: LearnerHealed,
  out: Outbox,
): void {
  if (member.heal?.healId !== event.healId) return;
  const { source, step: wanted } = member.heal;
  const { position } = event;
  const step = usableStep(state, position);
  if (step !== wanted) {
    failHeal(state, member, `stands at step ${position.step} of ${position.stage} by another history`, out);
    if (source.kind !== "peer" || position.step !== wanted) return;
    // The copy is not what was voted for, so the original is damaged as well.
    const peer = state.volatile.members.get(source.workerId);
    if (peer?.incarnation === source.incarnation) peer.step = -1;
    return;
  }
  member.heal = null;
  member.step = step;
  member.lateHeals += 1; // unless it proves to be in time, healing.ts
  member.differsSinceMs = null;
  state.volatile.healFailures = 0;
}

export function receiveHealFailed(
  state: CoordinatorState,
  member: Member,
  event: LearnerHealFailed,
  out: Outbox,
): void {
  if (member.heal?.healId === event.healId) failHeal(state, member, event.reason, out);
}

function failHeal(state: CoordinatorState, member: Member, reason: string, out: Outbox): void {
  const { volatile, config } = state;
  member.heal = null;
  member.step = -1;
  volatile.healFailures += 1;
  if (volatile.healFailures < config.maxStepAttempts) return;
  out.stop(
    "DATA",
    `learners failed ${volatile.healFailures} times in a row to load parameters (last: ${member.workerId}: ${reason}); check the checkpoint and the stage's starting model`,
  );
}

/** Whoever does not get done is fenced: it may join again. */
export function expireHeals(state: CoordinatorState, out: Outbox): void {
  const { volatile, config } = state;
  for (const member of [...volatile.learners]) {
    if (member.heal === null || volatile.nowMs < member.heal.deadlineMs) continue;
    const reason = `it was not done with loading or copying parameters within ${config.healTimeoutMs / 1000} s (cluster.healTimeoutMs)`;
    volatile.lastLateHeal = `${member.workerId}: ${reason}`;
    fence(member.workerId, member.incarnation, reason, out);
    removeMember(state, member);
    volatile.counters.membersLost += 1;
  }
}
