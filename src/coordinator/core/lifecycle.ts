/** Workers coming and going, and everything that happens because time passed. */
import { expireStep } from "./attempts.js";
import { noteSilence } from "./blame.js";
import type { LearnerSilent, WorkerRegistered } from "./events.js";
import { expireHeals } from "./heals.js";
import { acceptMember, addMember, fence, removeMember, renewLease } from "./members.js";
import type { Outbox } from "./outbox.js";
import type { CoordinatorState, Member } from "./state.js";
import { expireLeases, releaseMemberLeases } from "./tasks.js";
import { abortIfMember } from "./steps.js";

/** Why a silent member is fenced. */
export const LEASE_EXPIRED = "no heartbeat within the lease";

export function registerWorker(state: CoordinatorState, event: WorkerRegistered, out: Outbox): void {
  const older = state.volatile.members.get(event.workerId);
  if (older?.requestId === event.requestId) {
    renewLease(state, older);
    return acceptMember(state, older, out);
  }
  if (older !== undefined) {
    const reason = `another process joined as ${older.workerId}; give every worker a --worker-id of its own, or none`;
    fence(older.workerId, older.incarnation, reason, out, "REPLACED");
    loseMember(state, older, "fenced", out);
  }
  addMember(state, event, out);
}

/** Takes the member out and gives its work to others at once; only a suspected crash counts against that work. */
export function loseMember(
  state: CoordinatorState,
  member: Member,
  cause: "drained" | "connection" | "fenced" | "lease",
  out: Outbox,
): void {
  const isBlamed = cause !== "drained";
  if (isBlamed) {
    state.volatile.counters.membersLost += 1;
    if (member.role === "rollout") state.volatile.rolloutsLost += 1;
  }
  removeMember(state, member);
  releaseMemberLeases(state, member, cause, isBlamed, out);
  abortIfMember(state, member, isBlamed, out);
}

/**
 * It lives, and does not do what it was asked: others are asked, and it may join again. Who is asked again and again was
 * the only one, or all of them are like it: that ends the run.
 */
export function giveUpLearner(state: CoordinatorState, event: LearnerSilent, out: Outbox): void {
  const member = state.volatile.members.get(event.workerId);
  if (member?.incarnation !== event.incarnation) return;
  fence(event.workerId, event.incarnation, event.reason, out);
  loseMember(state, member, "fenced", out);
  const silences = noteSilence(state, event.workerId);
  if (silences < state.config.maxStepAttempts) return;
  out.stop(
    "BUDGET",
    `${event.workerId} was given up ${silences} times without a step in between (last: ${event.reason}); see that learner's log, or raise cluster.stepTimeoutMs or cluster.healTimeoutMs`,
  );
}

/** Lets draining workers go that hold nothing: no task, no part in the step under way, no state that would be lost. */
export function releaseDrained(state: CoordinatorState, out: Outbox): void {
  const { draining, activeStep } = state.volatile;
  for (const member of [...draining]) {
    if (member.leases.size > 0) continue;
    if (activeStep?.members.some((other) => other.incarnation === member.incarnation)) continue;
    if (isKept(state, member)) continue;
    out.send({ type: "ReleaseWorker", workerId: member.workerId, incarnation: member.incarnation });
    removeMember(state, member);
  }
}

/**
 * Whether steps would have to be computed again without this learner, and somebody is there, or may be back soon, to
 * whom it can give its state. Of several the last one that was told to leave stays.
 */
function isKept(state: CoordinatorState, member: Member): boolean {
  const { volatile, durable, config } = state;
  if (member.role !== "learner" || volatile.isClosing || durable.stage === null) return false;
  if (member.drainUntilMs === null || volatile.nowMs >= member.drainUntilMs) return false;
  const step = stepHeldBy(member);
  if (step <= (durable.checkpoint?.step ?? 0)) return false;
  const others = [...volatile.learners].filter((other) => other !== member);
  const leaving = [...volatile.draining];
  const isLater = (other: Member) => leaving.indexOf(other) > leaving.indexOf(member);
  if (others.some((other) => stepHeldBy(other) >= step && (other.state !== "draining" || isLater(other))))
    return false;
  const { learnerLeftMs } = volatile;
  const isOneBack = learnerLeftMs !== null && volatile.nowMs - learnerLeftMs < config.drainTimeoutMs;
  return isOneBack || others.length > 0; // one that leaves as well may be back as well
}

/** The step whose result it holds, or is about to apply from its vote; -1 for none. */
const stepHeldBy = ({ step, heal }: Member): number =>
  heal === null ? step : heal.source.kind === "vote" ? heal.step : -1;

export function expireAll(state: CoordinatorState, out: Outbox): void {
  const { volatile } = state;
  for (const member of volatile.silent) {
    if (volatile.nowMs < member.leaseExpiresAtMs) break;
    fence(member.workerId, member.incarnation, LEASE_EXPIRED, out);
    loseMember(state, member, "lease", out);
  }
  expireLeases(state, out);
  expireStep(state, out);
  expireHeals(state, out);
  stopIfNobodyCame(state, out);
}

/** Keeps `noRolloutsSinceMs`: since when tasks wait and no rollout worker would take one. */
export function noteMissingRollouts(state: CoordinatorState): void {
  const { volatile } = state;
  if (volatile.tasks.size > 0 && volatile.takers.size === 0) volatile.noRolloutsSinceMs ??= volatile.nowMs;
  else volatile.noRolloutsSinceMs = null;
}

/** Whoever copies parameters may be ready soon, and is given up when it is not. */
export const isHealing = ({ volatile }: CoordinatorState): boolean =>
  [...volatile.learners].some(({ heal }) => heal !== null);

function stopIfNobodyCame(state: CoordinatorState, out: Outbox): void {
  const { volatile, config } = state;
  const isOver = (sinceMs: number | null): boolean =>
    sinceMs !== null && volatile.nowMs - sinceMs >= config.waitForWorkersMs;
  if (isOver(volatile.noRolloutsSinceMs)) {
    out.stop(
      "UNREACHABLE",
      `no rollout worker that takes tasks for ${config.waitForWorkersMs} ms; start one, or see the workers' logs`,
    );
  }
  if (isOver(volatile.noLearnersSinceMs) && !isHealing(state)) {
    const last = volatile.lastLateHeal === "" ? "" : ` (last: ${volatile.lastLateHeal})`;
    out.stop(
      "UNREACHABLE",
      `fewer than ${config.minLearners} ready learners for ${config.waitForWorkersMs} ms${last}; start more, or lower cluster.minLearners`,
    );
  }
}
