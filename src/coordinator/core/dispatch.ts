/** Who does which task: oldest first, to a worker that holds the policy, while there is room for what it will bring. */
import { hedgeStragglers } from "./hedging.js";
import type { Outbox } from "./outbox.js";
import { failedBy, hasFreshWorker } from "./poison.js";
import type { CoordinatorState, Member, Task } from "./state.js";
import { assign, isAhead, oldestPolicyFor } from "./tasks.js";
import type { WaitingGroup } from "./waiting-tasks.js";

/**
 * Hands out what can be handed out, to a worker that did not fail it while there is one. Called after every event: what
 * it costs follows from what it hands out, not from how many wait.
 */
export function dispatchTasks(state: CoordinatorState, out: Outbox): void {
  const { freeWorkers, waitingTasks } = state.volatile;
  if (freeWorkers.size === 0) return;
  /** Gets nothing new until it holds nothing, because a task waits that must be alone. */
  const saved = new Set<Member>();
  if (waitingTasks.size > 0) tellOutdated(state, out);
  for (const group of waitingTasks) {
    if (group.tasks.size === 0 || group.policyVersion > state.durable.policyVersion) continue;
    handOut(state, group, saved, out);
    if (freeWorkers.size === 0) return;
  }
  hedgeStragglers(state, out);
}

/** Whoever may still sample from an older policy is told of the newest as well: fresher experience is better. */
function tellOutdated({ durable, volatile }: CoordinatorState, out: Outbox): void {
  const { policyVersion } = durable;
  for (const member of volatile.freeWorkers.takeOutdated(policyVersion)) {
    if (member.refreshedTo === policyVersion) continue;
    member.refreshedTo = policyVersion;
    const { workerId, incarnation } = member;
    out.send({ type: "RefreshPolicy", workerId, incarnation, policyVersion });
  }
}

function handOut(state: CoordinatorState, { tasks }: WaitingGroup, saved: Set<Member>, out: Outbox): void {
  const { freeWorkers } = state.volatile;
  let place = 0;
  while (place < tasks.size && freeWorkers.size > 0) {
    const task = tasks.at(place);
    // Its turn comes before that of the younger ones, also when one of those would fit.
    if (task.kind === "experience" && !hasRoomFor(state, task)) return;
    const choice = chooseWorker(state, task, saved);
    if (choice === "unheld") return;
    if (choice === "later") place += 1;
    else assign(state, task, choice, task.lost, out);
  }
}

/** Fewest leases first; "unheld" when nobody free holds the policy, "later" when it waits for somebody else. */
function chooseWorker(state: CoordinatorState, task: Task, saved: Set<Member>): Member | "unheld" | "later" {
  const { durable, volatile } = state;
  const failed = failedBy(task);
  let best: Member | undefined;
  for (const member of volatile.freeWorkers.holding(oldestPolicyFor(state, task), durable.policyVersion)) {
    if (saved.has(member)) continue;
    best ??= member;
    if (failed.has(member.workerId)) continue;
    best = member;
    break;
  }
  if (best === undefined) return "unheld";
  // A worker that failed the task waits a little for one that did not.
  if (failed.has(best.workerId) && volatile.nowMs < task.holdUntilMs && hasFreshWorker(state, failed))
    return "later";
  if (!task.isIsolated || best.leases.size === 0) return best;
  saved.add(best);
  return "later";
}

/**
 * Whether the bytes it may bring fit, beside those of the tasks at work and of every older collection. A task of the
 * oldest open collection never waits: nothing leaves the buffer before that one is complete.
 */
function hasRoomFor(state: CoordinatorState, task: Task): boolean {
  const { durable, volatile, config } = state;
  const iteration = task.owner as number;
  if (!isAhead(state, iteration)) return true;
  const { bufferedBytes, open } = durable.counts;
  const bytesOf = (experiences: number): number => experiences * volatile.largestExperienceBytes;
  if (bufferedBytes + bytesOf(open) <= config.capacityBytes) return true; // even all that is asked for fits
  const older = volatile.waitingTasks.openBefore(iteration);
  const expected = bufferedBytes + bytesOf(task.openIds.size + volatile.leasedExperiences + older);
  return expected <= config.capacityBytes;
}
