/**
 * Learners that were waited for in vain. Blame is kept by name: whoever registers again has not proved anything yet. A
 * step that commits with a learner clears it.
 */
import { fence, removeMember } from "./members.js";
import type { Outbox } from "./outbox.js";
import { attemptLimitMs } from "./rounds.js";
import type { CoordinatorState, Member } from "./state.js";

/** Consecutive blames after which a learner is fenced while others go on; one more is enough when it is back. */
const MAX_BLAME = 2;
/** Doublings of the time for which the others go on without a learner that was fenced again and again. */
const MAX_DOUBLINGS = 6;

export function blame(state: CoordinatorState, workerId: string, reason: string, out: Outbox): void {
  const { volatile } = state;
  const member = volatile.members.get(workerId);
  if (member?.role !== "learner") return;
  const suspect = volatile.suspects.get(workerId) ?? { blame: 0, fenced: 0, untilMs: 0 };
  volatile.suspects.set(workerId, suspect);
  suspect.blame += 1;
  if (suspect.blame < MAX_BLAME) return;
  const hasOthers = [...volatile.learners].some(
    (other) => other !== member && other.step === volatile.groupStep,
  );
  if (!hasOthers) return;
  suspect.untilMs =
    volatile.nowMs +
    attemptLimitMs(state, state.config.round !== null) * 2 ** Math.min(suspect.fenced, MAX_DOUBLINGS);
  suspect.blame = MAX_BLAME - 1;
  suspect.fenced += 1;
  fence(workerId, member.incarnation, reason, out);
  removeMember(state, member);
  volatile.counters.membersLost += 1;
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
