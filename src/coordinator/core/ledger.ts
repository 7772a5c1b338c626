/**
 * The experience ledger: what was asked for, admitted, trained and dropped. An id is admitted exactly once for the
 * life of the run; every refusal leaves the durable state as it was (except giving up a non-finite or oversized id).
 *
 * Room is reserved for a whole collection before its first task is handed out, so experiences in flight can never
 * exceed the buffer and a redelivered task always finds its place free. With a buffer of (η + 1) collections of B this
 * is AReaL's admission rule: at most (η + v + 1)·B experiences asked for before version v + 1 is published.
 */
import type { ExperienceId } from "../../rl/types.js";
import type { ExperienceOutcome } from "./effects.js";
import type { CollectRequested, ExperiencesReceived, ReceivedExperience } from "./events.js";
import { iterationOf } from "./experience-id.js";
import { giveUp } from "./given-up.js";
import type { Outbox } from "./outbox.js";
import type { AbandonReason, DropReason } from "./records.js";
import { isListed } from "./retention.js";
import type { CoordinatorState, Member } from "./state.js";
import {
  addTask,
  endTask,
  isAhead,
  leaseOf,
  oldestPolicyFor,
  releaseLease,
  reportCollection,
  resolveId,
  startClock,
} from "./tasks.js";

/** Asks for a collection, or waits again for one that a restart found in the journal. */
export function requestCollection(state: CoordinatorState, event: CollectRequested, out: Outbox): void {
  const { durable, volatile } = state;
  const reason = whyNotCollectable(state, event);
  if (reason !== null) {
    out.send({ type: "CollectRefused", iteration: event.iteration, reason });
    return;
  }
  volatile.awaitedCollections.add(event.iteration);
  if (durable.collections.has(event.iteration)) reportCollection(state, event.iteration, out);
  else if (!volatile.waitingCollections.some((waiting) => waiting.iteration === event.iteration)) {
    const size = event.tasks.reduce((sum, task) => sum + task.experienceIds.length, 0);
    volatile.waitingCollections.push({ ...event, size });
  }
}

function whyNotCollectable(state: CoordinatorState, event: CollectRequested): string | null {
  const { durable, config } = state;
  if (durable.stage === null) return "no stage is open; StageStarted comes first";
  if (event.iteration <= durable.committedIteration)
    return `iteration ${event.iteration} is already committed`;
  if (durable.collections.has(event.iteration)) return null;
  const seen = new Set<ExperienceId>();
  for (const task of event.tasks) {
    for (const id of task.experienceIds) {
      if (iterationOf(id) !== event.iteration)
        return `experience ${id} does not belong to iteration ${event.iteration}`;
      if (seen.has(id)) return `experience ${id} is asked for twice`;
      seen.add(id);
    }
  }
  return seen.size > config.capacityExperiences
    ? `${seen.size} experiences do not fit the buffer of ${config.capacityExperiences}; raise its capacity or lower rolloutBatchSize`
    : null;
}

/** Opens waiting collections, oldest first, as far as the buffer has room for every one of their experiences. */
export function openWaitingCollections(state: CoordinatorState, out: Outbox): void {
  const { durable, volatile, config } = state;
  for (let next = volatile.waitingCollections[0]; next !== undefined; next = volatile.waitingCollections[0]) {
    if (durable.counts.open + durable.counts.buffered + next.size > config.capacityExperiences) return;
    volatile.waitingCollections.shift();
    const { iteration, policyVersion } = next;
    out.record({ type: "CollectionOpened", iteration, policyVersion, tasks: next.tasks });
    addCollectionTasks(state, iteration);
    reportCollection(state, iteration, out);
  }
}

/** Tasks for the ids of a collection that are still open. */
export function addCollectionTasks(state: CoordinatorState, iteration: number): void {
  const collection = state.durable.collections.get(iteration);
  for (const task of collection?.tasks ?? []) {
    const openIds = task.experienceIds.filter((id) => state.durable.experiences.get(id)?.status === "open");
    if (openIds.length > 0)
      addTask(state, task.taskId, "experience", iteration, collection!.policyVersion, openIds);
  }
}

/** Decides on experiences, one after the other, and answers. `member` is null when a stale incarnation signed them. */
export function receiveExperiences(
  state: CoordinatorState,
  member: Member | null,
  { workerId, incarnation, experiences }: ExperiencesReceived,
  out: Outbox,
): void {
  const outcomes: ExperienceOutcome[] = [];
  // Before anything that a verdict brings about: whoever hears that a collection is complete finds its experiences.
  out.send({ type: "AckExperiences", workerId, incarnation, experiences, outcomes });
  for (const experience of experiences)
    outcomes.push(receiveExperience(state, member, incarnation, experience, out));
}

function receiveExperience(
  state: CoordinatorState,
  member: Member | null,
  incarnation: number,
  experience: ReceivedExperience,
  out: Outbox,
): ExperienceOutcome {
  const outcome = judge(state, member, experience);
  const { volatile } = state;
  const { counters } = volatile;
  const { experienceId: id, taskId, policyVersion, bytes } = experience;
  const task = volatile.tasks.get(taskId);
  const lease = leaseOf(task, incarnation);
  switch (outcome) {
    case "admitted":
      out.admit(id, policyVersion, bytes);
      volatile.largestExperienceBytes = Math.max(volatile.largestExperienceBytes, bytes);
      if (lease !== undefined) {
        lease.progress = Math.max(lease.progress, 1);
        startClock(state, task!, lease);
      }
      break;
    case "nonfinite":
      counters.rejectedExperiences += 1;
      giveUp(state, [id], "nonfinite", out);
      break;
    case "overCapacity":
      counters.rejectedExperiences += 1;
      volatile.largestExperienceBytes = Math.max(volatile.largestExperienceBytes, bytes);
      if (isAhead(state, iterationOf(id))) {
        // Asked for again, by whoever is free, once the train loop has used something up.
        if (task !== undefined && lease !== undefined)
          releaseLease(state, task, lease, "capacity", false, out);
      } else {
        giveUp(state, [id], "overCapacity", out);
      }
      break;
    case "duplicate":
      counters.duplicateExperiences += 1;
      break;
    case "stale":
      counters.staleExperiences += 1;
      break;
    case "fenced":
    case "unknown":
      counters.rejectedExperiences += 1;
      break;
  }
  if (task !== undefined && state.durable.experiences.get(id)?.status !== "open") {
    resolveId(state, task, id);
    if (task.openIds.size === 0) endTask(state, task, false, out);
  }
  return outcome;
}

function judge(
  state: CoordinatorState,
  member: Member | null,
  experience: ReceivedExperience,
): ExperienceOutcome {
  const { durable, volatile, config } = state;
  if (member === null || member.role !== "rollout") return "fenced";
  const entry = durable.experiences.get(experience.experienceId);
  if (entry === undefined)
    return iterationOf(experience.experienceId) <= durable.committedIteration ? "duplicate" : "unknown";
  if (entry.status !== "open") return "duplicate";
  const task = volatile.tasks.get(experience.taskId);
  if (task === undefined || !task.openIds.has(experience.experienceId)) return "unknown";
  // Attempts this epoch did not hand out come from before a restart: their content is the same function of the id.
  const assigned = task.assigned.get(experience.attempt);
  if (assigned !== undefined && assigned.workerId !== member.workerId) return "fenced";
  if (experience.policyVersion > durable.policyVersion) return "unknown";
  if (experience.policyVersion < oldestPolicyFor(state, task)) return "stale";
  if (!experience.isFinite) return "nonfinite";
  if (durable.counts.bufferedBytes + experience.bytes > config.capacityBytes) return "overCapacity";
  return "admitted";
}

/** Drops buffered experiences that the new policy has left too far behind, except those of a step under way. */
export function dropStale(state: CoordinatorState, out: Outbox): void {
  const { durable, volatile, config } = state;
  const isStale = (policyVersion: number): boolean =>
    durable.policyVersion - policyVersion > config.maxStalenessVersions;
  const inStep = new Set(volatile.activeStep?.manifest.experienceIds ?? []);
  const ids: ExperienceId[] = [];
  for (const [id, entry] of durable.experiences) {
    if (entry.status === "buffered" && isStale(entry.policyVersion) && !inStep.has(id)) ids.push(id);
  }
  dropBuffered(state, ids, "stale", out);
  for (const task of volatile.tasks.values()) {
    // Whoever holds it samples from a policy nobody would admit; not the worker's fault.
    if (task.kind !== "experience") continue;
    for (const lease of task.leases.filter(({ policyVersion }) => isStale(policyVersion)))
      releaseLease(state, task, lease, "stale", true, out);
  }
}

/** Gives up everything of the iterations up to `iteration` that is still open or buffered. */
export function closeIterations(
  state: CoordinatorState,
  iteration: number,
  openReason: AbandonReason,
  bufferedReason: DropReason,
  out: Outbox,
): void {
  const { durable, volatile } = state;
  const open: ExperienceId[] = [];
  const buffered: ExperienceId[] = [];
  for (const [id, entry] of durable.experiences) {
    if (entry.iteration > iteration) continue;
    if (entry.status === "open") open.push(id);
    else if (entry.status === "buffered") buffered.push(id);
  }
  const waiting = volatile.waitingCollections.filter((request) => request.iteration > iteration);
  volatile.waitingCollections.splice(0, Infinity, ...waiting);
  for (const awaited of volatile.awaitedCollections)
    if (awaited <= iteration) volatile.awaitedCollections.delete(awaited);
  if (open.length > 0) out.record({ type: "ExperiencesAbandoned", experienceIds: open, reason: openReason });
  dropBuffered(state, buffered, bufferedReason, out);
  for (const task of [...volatile.tasks.values()]) {
    if (task.kind === "experience" && (task.owner as number) <= iteration) endTask(state, task, false, out);
  }
}

function dropBuffered(
  state: CoordinatorState,
  ids: readonly ExperienceId[],
  reason: DropReason,
  out: Outbox,
): void {
  if (ids.length === 0) return;
  const deletePayloads = ids.filter((id) => !isListed(state.durable.experiences.get(id)!));
  out.record({ type: "ExperiencesDropped", experienceIds: ids, reason }, { deletePayloads });
  out.send({ type: "ExperiencesDropped", experienceIds: ids, reason });
}
