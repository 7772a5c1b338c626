/**
 * A round of parameter averaging is a step in two parts. While its members train, each alone, those who leave are left
 * behind and the others go on; once the shell says who has trained, the rest is any other step: sum, vote, commit.
 */
import { attemptLimitMs } from "./attempt-limit.js";
import { evict } from "./blame.js";
import type { RoundTrained } from "./events.js";
import type { Outbox } from "./outbox.js";
import type { ActiveStep, CoordinatorState, Member } from "./state.js";

export function leaveRound(active: ActiveStep, member: Member, out: Outbox): void {
  active.members = active.members.filter(({ incarnation }) => incarnation !== member.incarnation);
  const { generation, manifest } = active;
  out.send({ type: "LeaveRound", generation, step: manifest.step, workerId: member.workerId });
}

/**
 * Whoever has not trained by now is fenced: it may join again, and takes the others' state when it does. At once the first
 * time, which may have been one slow minibatch.
 */
export function closeRound(state: CoordinatorState, event: RoundTrained, out: Outbox): void {
  const { volatile } = state;
  const active = volatile.activeStep;
  if (active?.generation !== event.generation || active.manifest.step !== event.step || !active.isTraining)
    return;
  const trained = active.members.filter(({ workerId }) => event.workerIds.includes(workerId));
  // The shell counts on one that has left meanwhile, also for what is left out: it is told of that, and decides again.
  if (trained.length < event.workerIds.length || trained.length === 0) return;
  for (const { workerId, incarnation } of active.members) {
    const member = volatile.members.get(workerId);
    if (event.workerIds.includes(workerId) || member?.incarnation !== incarnation) continue;
    evict(state, member, "did not finish its part of the round in time", out, true);
  }
  active.members = trained;
  active.isTraining = false;
  active.leftOut = event.leftOut;
  const limitMs = attemptLimitMs(state, false);
  active.deadlineMs = volatile.nowMs + limitMs;
  const { generation } = active;
  out.send({ type: "AverageRound", generation, step: event.step, members: trained, limitMs });
}
