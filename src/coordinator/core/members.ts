/**
 * Membership: who is here, under which incarnation, and until when without a sign of life.
 *
 * An incarnation is `epoch · EPOCH_SPAN + n`: unique for the life of the run without journalling a registration,
 * and greater than every incarnation of an older epoch.
 */
import type { FenceWorker } from "./effects.js";
import type {
  LearnerPosition,
  PolicyHeld,
  WorkerEvent,
  WorkerHeartbeat,
  WorkerReady,
  WorkerRegistered,
} from "./events.js";
import { hashAfter } from "./durable.js";
import type { Outbox } from "./outbox.js";
import type { CoordinatorState, Member } from "./state.js";

const EPOCH_SPAN = 1_000_000_000;

/** The member that signed the event, or null when the signature is not that of a live member. */
export function signer(state: CoordinatorState, event: WorkerEvent): Member | null {
  const member = state.volatile.members.get(event.workerId);
  return member !== undefined && member.incarnation === event.incarnation ? member : null;
}

/** Admits a process under a new incarnation. The caller has already removed an older process of that id. */
export function addMember(state: CoordinatorState, event: WorkerRegistered, out: Outbox): Member {
  const { durable, volatile } = state;
  const member: Member = {
    workerId: event.workerId,
    role: event.role,
    incarnation: durable.epoch * EPOCH_SPAN + volatile.nextIncarnation++,
    requestId: event.requestId,
    state: event.role === "learner" ? "joining" : "ready",
    leaseExpiresAtMs: 0,
    drainUntilMs: null,
    credits: 0,
    policyVersion: event.policyVersion,
    refreshedTo: -1,
    leases: new Set(),
    isReserved: false,
    step: event.role === "learner" ? usableStep(state, event.position) : -1,
    voted: event.position?.stage === durable.stage ? (event.position?.voted ?? null) : null,
    differsSinceMs: null,
    lateHeals: 0,
    heal: null,
  };
  volatile.members.set(member.workerId, member);
  renewLease(state, member);
  if (member.role === "learner") volatile.learners.add(member);
  acceptMember(state, member, out);
  return member;
}

/** It was heard of. */
export function renewLease({ volatile, config }: CoordinatorState, member: Member): void {
  member.leaseExpiresAtMs = volatile.nowMs + config.leaseTtlMs;
  volatile.silent.delete(member);
  volatile.silent.add(member);
}

/** Tells a process its incarnation; also the answer to a registration that was already answered. */
export function acceptMember(state: CoordinatorState, member: Member, out: Outbox): void {
  out.send({
    type: "AcceptWorker",
    workerId: member.workerId,
    requestId: member.requestId,
    incarnation: member.incarnation,
    epoch: state.durable.epoch,
  });
}

/** Renews the lease and believes what the worker says of itself; a learner's step is judged in healing.ts. */
export function renewMember(
  state: CoordinatorState,
  member: Member,
  event: WorkerHeartbeat,
  out: Outbox,
): void {
  renewLease(state, member);
  if (event.policyVersion !== undefined) holdPolicy(state, member, event.policyVersion);
  out.send({
    type: "AckHeartbeat",
    workerId: member.workerId,
    incarnation: member.incarnation,
    isReady: member.state === "ready" || (member.state === "joining" && state.durable.stage === null),
    policyVersion: state.durable.policyVersion,
  });
}

export function setCredits(state: CoordinatorState, member: Member, event: WorkerReady): void {
  if (member.role !== "rollout") return;
  member.credits = Math.max(0, Math.floor(event.credits));
  member.policyVersion = event.policyVersion;
  state.volatile.freeWorkers.update(member);
  if (member.credits > 0 && member.state === "ready") state.volatile.takers.add(member);
  else state.volatile.takers.delete(member);
}

function holdPolicy({ volatile }: CoordinatorState, member: Member, policyVersion: number): void {
  if (member.role !== "rollout") return;
  member.policyVersion = policyVersion;
  volatile.freeWorkers.update(member);
}

/** The member takes nothing new; it is released once it holds nothing that would be lost with it. */
export function startDraining(state: CoordinatorState, member: Member): void {
  member.state = "draining";
  member.drainUntilMs ??= state.volatile.nowMs + state.config.drainTimeoutMs;
  state.volatile.draining.add(member);
  state.volatile.takers.delete(member);
  state.volatile.freeWorkers.update(member);
}

/** These rollout workers hold `policyVersion`, or load it before they begin. */
export function notePolicyHeld(state: CoordinatorState, { workers, policyVersion }: PolicyHeld): void {
  for (const { workerId, incarnation } of workers) {
    const member = state.volatile.members.get(workerId);
    if (member?.incarnation === incarnation) holdPolicy(state, member, policyVersion);
  }
}

/** Tells an incarnation that it is over. */
export function fence(
  workerId: string,
  incarnation: number,
  reason: string,
  out: Outbox,
  code: FenceWorker["code"] = "FENCED",
): void {
  out.send({ type: "FenceWorker", workerId, incarnation, code, reason });
}

/** Forgets the member; learners that were copying its state need another source. */
export function removeMember(state: CoordinatorState, member: Member): void {
  const { members, silent, learners, draining, freeWorkers, takers } = state.volatile;
  if (members.get(member.workerId) === member) members.delete(member.workerId);
  silent.delete(member);
  learners.delete(member);
  draining.delete(member);
  takers.delete(member);
  freeWorkers.delete(member);
  if (member.role !== "learner") return;
  state.volatile.learnerLeftMs = state.volatile.nowMs;
  for (const other of learners) {
    if (other.heal?.source.kind !== "peer" || other.heal.isLent) continue;
    if (other.heal.source.incarnation === member.incarnation) other.heal = null;
  }
}

/** The step a learner's state can be used at, or -1: wrong stage, a step nobody finished, or another history. */
export function usableStep(state: CoordinatorState, position: LearnerPosition | null): number {
  const { durable } = state;
  if (position === null || position.stage !== durable.stage) return -1;
  if (!Number.isInteger(position.step) || position.step < 0 || position.step > durable.finishedStep)
    return -1;
  const known = hashAfter(durable, position.step);
  return position.hash !== "" && known !== "" && position.hash !== known ? -1 : position.step;
}
