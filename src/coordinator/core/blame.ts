/**
 * Learners that were waited for in vain. Blame is kept by name: whoever registers again has not proved anything yet. A
 * step that commits with a learner clears it.
 */
import { attemptLimitMs } from "./attempt-limit.js";
import { fence, removeMember } from "./members.js";
import type { Outbox } from "./outbox.js";
import type { CoordinatorState, Member, Suspect } from "./state.js";

/** Consecutive blames after which a learner is fenced while others go on; one more is enough when it is back. */
const MAX_BLAME = 2;
/** Doublings of the time for which the others go on without a learner that was fenced again and again. */
const MAX_DOUBLINGS = 6;

/** The others waited for it. The second time in a row it is put out, if there is somebody who can go on. */
export function blame(state: CoordinatorState, workerId: string, reason: string, out: Outbox): void {
  const { volatile } = state;
  const member = volatile.members.get(workerId);
  if (member?.role !== "learner") return;
  const suspect = suspectOf(state, workerId);
  suspect.blame += 1;
  if (suspect.blame < MAX_BLAME) return;
  const hasOthers = [...volatile.learners].some(
    (other) => other !== member && other.step === volatile.groupStep,
  );
  if (!hasOthers) return;
  suspect.blame = MAX_BLAME - 1;
  evict(state, member, reason, out);
}

/**
 * Fences a learner. The others go on without it for as long as an attempt may take, for twice as long each time in a row.
 * @param isFirstFree the first time it may come back at once
 */
export function evict(
  state: CoordinatorState,
  member: Member,
  reason: string,
  out: Outbox,
  isFirstFree = false,
): void {
  const { volatile } = state;
  const { workerId, incarnation } = member;
  const suspect = suspectOf(state, workerId);
  const doublings = Math.min(suspect.fenced - Number(isFirstFree), MAX_DOUBLINGS);
  const waitMs = doublings < 0 ? 0 : attemptLimitMs(state, false) * 2 ** doublings;
  suspect.untilMs = volatile.nowMs + waitMs;
  suspect.fenced += 1;
  fence(workerId, incarnation, reason, out);
  removeMember(state, member);
  volatile.counters.membersLost += 1;
}

function suspectOf({ volatile }: CoordinatorState, workerId: string): Suspect {
  const suspect = volatile.suspects.get(workerId) ?? { blame: 0, fenced: 0, silences: 0, untilMs: 0 };
  volatile.suspects.set(workerId, suspect);
  return suspect;
}

/** It did not answer what it was asked between steps. @returns how often that was so, since a step committed with it */
export function noteSilence(state: CoordinatorState, workerId: string): number {
  return ++suspectOf(state, workerId).silences;
}

/** It did its part. */
export function clearBlame({ volatile }: CoordinatorState, workerId: string): void {
  volatile.suspects.delete(workerId);
}

/**
 * The learners that take part in what is next: those that are not leaving. One that was fenced for being waited for
 * stays out for a while, so that a process which never answers does not cost every other attempt; unless it is needed.
 */
export function learnersInService({ volatile, durable, config }: CoordinatorState): Member[] {
  const all: Member[] = [];
  for (const member of volatile.learners) if (member.state !== "draining") all.push(member);
  if (volatile.suspects.size === 0) return all;
  const trusted = all.filter(
    ({ workerId }) => (volatile.suspects.get(workerId)?.untilMs ?? 0) <= volatile.nowMs,
  );
  const suffice =
    trusted.length >= config.minLearners && trusted.some(({ step }) => step === durable.finishedStep);
  return suffice ? trusted : all;
}
