/**
 * Failed attempts, and when a prompt is to blame for them. A worker may die of what it was given, of itself, or of
 * somebody who kills workers; only repetition tells:
 *
 *   1. A task that failed `maxTaskAttempts` times is taken apart: its prompts are handed out one at a time, each to a
 *      worker that holds nothing else, so that the others are not lost with the one that fails.
 *   2. A prompt is poison once WITNESSES workers failed with nothing else in hand. The same worker again is no further
 *      witness while somebody else could be asked; and where workers die without having the prompt, each such death
 *      asks for one witness more. After MAX_FAILURES nobody else is risked.
 *
 * Nothing of this is durable: after a restart of the coordinator every prompt that is still open is tried again.
 */
import type { ExperienceId } from "../../rl/types.js";
import type { Redelivery } from "./effects.js";
import { giveUp } from "./given-up.js";
import type { Outbox } from "./outbox.js";
import type { CoordinatorState, Suspicion, Task, TaskLease } from "./state.js";
import { endTask, releaseLease, resolveId } from "./tasks.js";

/** Workers that have to fail with the prompt alone. */
const WITNESSES = 2;
/** Failures with the prompt alone after which it is given up in any case. */
const MAX_FAILURES = 8;

/** The worker did not say that it failed: it may as well have been killed. */
const isCrash = (cause: Redelivery): boolean =>
  cause === "connection" || cause === "lease" || cause === "fenced";

/** A worker says when it begins: what it never began, it did not get stuck with. */
const hasBegun = (cause: Redelivery, { progress }: TaskLease): boolean => cause !== "timeout" || progress > 0;

/** The attempt is over. It failed, and counts, unless nothing it was asked for is left open. */
export function failAttempt(
  state: CoordinatorState,
  task: Task,
  lease: TaskLease,
  cause: Redelivery,
  shouldTell: boolean,
  out: Outbox,
): void {
  const { volatile, config } = state;
  const open = lease.experienceIds.filter((id) => task.openIds.has(id));
  if (open.length === 0) return releaseLease(state, task, lease, "isolated", shouldTell, out);
  releaseLease(state, task, lease, cause, shouldTell, out);
  task.holdUntilMs = volatile.nowMs + config.leaseTtlMs;
  volatile.heldBack.delete(task);
  volatile.heldBack.add(task);
  volatile.counters.tasksReassigned += 1;
  if (!hasBegun(cause, lease)) return;
  if (lease.isAlone) return failAlone(state, task, open[0], lease.workerId, isCrash(cause), out);
  task.failures += 1;
  task.failedBy.add(lease.workerId);
  if (task.failures < config.maxTaskAttempts || task.isIsolated) return;
  task.isIsolated = true;
}

/** Workers that failed with what would be handed out next. */
export function failedBy({ openIds, isIsolated, alone, failedBy }: Task): ReadonlySet<string> {
  if (!isIsolated) return failedBy;
  const [next] = openIds;
  // What happened to all of its prompts together says nothing about one of them.
  return alone.get(next)?.failedBy ?? NOBODY;
}

const NOBODY: ReadonlySet<string> = new Set();

/** Somebody who did not fail is here, and only busy or behind. */
export function hasFreshWorker({ volatile }: CoordinatorState, failed: ReadonlySet<string>): boolean {
  for (const { role, state, workerId } of volatile.members.values())
    if (role === "rollout" && state === "ready" && !failed.has(workerId)) return true;
  return false;
}

function failAlone(
  state: CoordinatorState,
  task: Task,
  id: ExperienceId,
  workerId: string,
  hasCrashed: boolean,
  out: Outbox,
): void {
  const crashes = Number(hasCrashed);
  let suspicion = task.alone.get(id);
  if (suspicion === undefined) {
    const lossesBefore = state.volatile.rolloutsLost - crashes;
    task.alone.set(id, (suspicion = { failures: 0, crashes: 0, failedBy: new Set(), lossesBefore }));
  }
  suspicion.failures += 1;
  suspicion.crashes += crashes;
  suspicion.failedBy.add(workerId);
  if (isGuilty(state, suspicion)) return giveUpPoison(state, task, id, out);
  // The others of its task are tried before it is tried again.
  task.openIds.delete(id);
  task.openIds.add(id);
}

function isGuilty(state: CoordinatorState, suspicion: Suspicion): boolean {
  const { failures, crashes, failedBy, lossesBefore } = suspicion;
  if (failures >= MAX_FAILURES) return true;
  const lossesElsewhere = state.volatile.rolloutsLost - lossesBefore - crashes;
  const witnesses = hasFreshWorker(state, failedBy) ? failedBy.size : failures;
  return witnesses >= WITNESSES + lossesElsewhere;
}

function giveUpPoison(state: CoordinatorState, task: Task, id: ExperienceId, out: Outbox): void {
  if (task.kind === "experience") giveUp(state, [id], "poison", out);
  else {
    state.volatile.evaluations.get(task.owner as string)?.givenUp.push(id);
    out.send({ type: "ExperiencesGivenUp", experienceIds: [id], reason: "poison" });
  }
  resolveId(state, task, id);
  if (task.openIds.size === 0) endTask(state, task, true, out);
}
