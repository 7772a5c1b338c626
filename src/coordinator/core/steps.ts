/**
 * One optimizer step: prepare -> start -> reduce (bulk path, outside the core) -> vote -> commit.
 *
 *   - at most one step is under way; its (generation, step) pair is never reused, so late frames and votes of another
 *     generation cannot count
 *   - a step commits only if every member of its generation voted finite with the same hash, and the commit is in the
 *     journal before anybody hears of it
 *   - one non-finite vote skips the step for everybody; anything else that goes wrong aborts the generation and does
 *     the same step again with whoever is left
 */
import { attemptLimitMs } from "./attempt-limit.js";
import { clearBlame } from "./blame.js";
import type { StepManifest } from "./durable.js";
import type { AbortReason, StepMember } from "./effects.js";
import type { StepRequested, StepVote } from "./events.js";
import type { Outbox } from "./outbox.js";
import { leaveRound } from "./rounds.js";
import type { ActiveStep, CoordinatorState, Member } from "./state.js";
import type { ExperienceId } from "../../rl/types.js";

/** Notes the step the train loop wants; healing.ts starts it when the group is complete. */
export function requestStep(state: CoordinatorState, event: StepRequested, out: Outbox): void {
  const { durable, volatile } = state;
  const { stage, step } = event;
  const refuse = (reason: string): void =>
    out.send({ type: "StepRefused", stage, step, reason, missing: [] });
  if (stage !== durable.stage) return refuse(`the open stage is ${durable.stage ?? "none"}`);
  if (step <= durable.finishedStep) {
    const manifest = durable.manifests.find((finished) => finished.step === step);
    const { outcome = "committed", hash = "" } = manifest ?? {};
    out.send({ type: "StepFinished", stage, step, outcome, hash });
    return;
  }
  if (step !== durable.finishedStep + 1) return refuse(`the next step is ${durable.finishedStep + 1}`);
  if (!Number.isInteger(event.shardCount) || event.shardCount < 1)
    return refuse("shardCount must be at least 1");
  if (new Set(event.experienceIds).size !== event.experienceIds.length)
    return refuse("an experience is listed twice");
  volatile.stepRequest = event;
}

/** Starts the requested step with these learners; refuses it when an experience is not buffered any more. */
export function startRequestedStep(state: CoordinatorState, learners: readonly Member[], out: Outbox): void {
  const { durable, volatile } = state;
  const request = volatile.stepRequest;
  if (request === null) return;
  const missing = request.experienceIds.filter((id) => !isTrainable(state, id));
  if (missing.length > 0) {
    volatile.stepRequest = null;
    const { stage, step } = request;
    out.send({ type: "StepRefused", stage, step, reason: "experiences are not buffered any more", missing });
    return;
  }
  const { step, experienceIds, input, shardCount, isFinalUse } = request;
  const manifest: StepManifest = { step, experienceIds, input, shardCount, isFinalUse };
  const generation = durable.generation + 1;
  out.record({ type: "StepPrepared", stage: request.stage, generation, ...manifest });
  openGeneration(state, manifest, generation, learners, false, out);
}

function isTrainable(state: CoordinatorState, id: ExperienceId): boolean {
  const entry = state.durable.experiences.get(id);
  return (
    entry?.status === "buffered" &&
    state.durable.policyVersion - entry.policyVersion <= state.config.maxStalenessVersions
  );
}

/** Does a committed step again with learners that were restored from an older state. */
export function startReplay(
  state: CoordinatorState,
  manifest: StepManifest,
  learners: readonly Member[],
  out: Outbox,
): void {
  const generation = state.durable.generation + 1;
  out.record({ type: "GenerationOpened", generation, step: manifest.step });
  openGeneration(state, manifest, generation, learners, true, out);
}

function openGeneration(
  state: CoordinatorState,
  manifest: StepManifest,
  generation: number,
  learners: readonly Member[],
  isReplay: boolean,
  out: Outbox,
): void {
  const { volatile, durable, config } = state;
  const members = shareShards(
    inTurn(learners, manifest.shardCount, volatile.stepAborts),
    manifest.shardCount,
  );
  const isTraining = config.round !== null;
  const limitMs = attemptLimitMs(state, isTraining);
  volatile.activeStep = {
    manifest,
    generation,
    members,
    computed: new Set(),
    votes: new Map(),
    deadlineMs: volatile.nowMs + limitMs,
    isReplay,
    isTraining,
    leftOut: [],
  };
  out.send({
    type: "StartStep",
    stage: durable.stage ?? "",
    generation,
    step: manifest.step,
    members,
    experienceIds: manifest.experienceIds,
    input: manifest.input,
    shardCount: manifest.shardCount,
    isReplay,
    limitMs,
  });
}

/** Where some have nothing to do, it is others with every attempt: nobody else would show that it can. */
function inTurn(learners: readonly Member[], shardCount: number, attempt: number): readonly Member[] {
  if (learners.length <= shardCount) return learners;
  const first = attempt % learners.length;
  return [...learners.slice(first), ...learners.slice(0, first)];
}

/** Contiguous ranges in join order, as even as possible: the first `shardCount mod n` learners take one more. */
export function shareShards(
  learners: readonly Pick<Member, "workerId" | "incarnation">[],
  shardCount: number,
): StepMember[] {
  const each = Math.floor(shardCount / learners.length);
  const extra = shardCount % learners.length;
  return learners.map(({ workerId, incarnation }, rank) => ({
    workerId,
    incarnation,
    rank,
    firstShard: rank * each + Math.min(rank, extra),
    shardCount: each + (rank < extra ? 1 : 0),
  }));
}

export function receiveVote(state: CoordinatorState, member: Member, event: StepVote, out: Outbox): void {
  const { volatile } = state;
  const active = volatile.activeStep;
  if (
    active === null ||
    event.generation !== active.generation ||
    event.step !== active.manifest.step ||
    !isMember(active, member)
  ) {
    volatile.counters.staleVotes += 1;
    return;
  }
  if (!event.isFinite) {
    // What was committed is not skipped any more, though a repeated round may come out differently: it is done again.
    if (active.isReplay) mismatch(state, active, out);
    else skip(state, active, member, out);
    return;
  }
  active.votes.set(member.workerId, event.hash);
  if (active.votes.size < active.members.length) return;
  const hashes = new Set(active.votes.values());
  const expected = mustRepeat(state, active) ? committedHash(state, active.manifest.step) : "";
  if (hashes.size > 1 || (expected !== "" && !hashes.has(expected))) mismatch(state, active, out);
  else commit(state, active, event.hash, out);
}

/** The step was committed before, and its result follows from its manifest alone: it must be the same again. */
const mustRepeat = (state: CoordinatorState, active: ActiveStep): boolean =>
  active.isReplay && state.config.round === null;

export const isMember = (active: ActiveStep, member: Member): boolean =>
  active.members.some((other) => other.incarnation === member.incarnation);

function committedHash(state: CoordinatorState, step: number): string {
  return state.durable.manifests.find((manifest) => manifest.step === step)?.hash ?? "";
}

function commit(state: CoordinatorState, active: ActiveStep, hash: string, out: Outbox): void {
  const { volatile, durable } = state;
  const stage = durable.stage ?? "";
  const { generation, members, leftOut } = active;
  const { step } = active.manifest;
  const holders = members.map(({ workerId }) => workerId);
  if (active.isReplay) volatile.counters.stepsReplayed += 1;
  else {
    const missed = leftOut.length > 0 ? { leftOut } : {};
    out.record({ type: "StepCommitted", stage, generation, step, hash, holders, ...missed });
  }
  out.send({ type: "CommitStep", stage, generation, step, hash, members });
  closeFinished(state, active, step);
  if (active.isReplay) return;
  out.send({ type: "StepFinished", stage, step, outcome: "committed", hash });
}

function skip(state: CoordinatorState, active: ActiveStep, voter: Member, out: Outbox): void {
  const { durable, config } = state;
  const stage = durable.stage ?? "";
  const { generation, members } = active;
  const { step } = active.manifest;
  out.record({ type: "StepSkipped", stage, generation, step, reason: "nonfinite" });
  out.send({ type: "SkipStep", stage, generation, step, reason: "nonfinite", members });
  closeFinished(state, active, step);
  out.send({ type: "StepFinished", stage, step, outcome: "skipped", hash: "" });
  if (durable.consecutiveSkips < config.maxSkippedSteps) return;
  out.stop(
    "NUMERIC",
    `${durable.consecutiveSkips} optimizer steps in a row were not finite (last: step ${step} of ${stage}, reported by ${voter.workerId}); lower the learning rate, or inspect the batch of that step in the journal`,
  );
}

function closeFinished(state: CoordinatorState, active: ActiveStep, step: number): void {
  const { volatile } = state;
  volatile.activeStep = null;
  if (!active.isReplay) volatile.stepRequest = null;
  volatile.groupStep = step;
  volatile.stepAborts = 0;
  volatile.hashMismatches = 0;
  for (const { workerId, incarnation } of active.members) {
    const member = volatile.members.get(workerId);
    if (member?.incarnation !== incarnation) continue;
    member.step = step;
    clearBlame(state, workerId);
    member.differsSinceMs = null;
  }
}

/**
 * Members disagree about the state after the step. Once may be a damaged sum: do it again. Twice means that states
 * differ: the minority copies from the majority; without a majority (or when the journal disagrees) everybody goes
 * back to the checkpoint and repeats the steps since, whose hashes the journal knows.
 */
function mismatch(state: CoordinatorState, active: ActiveStep, out: Outbox): void {
  const { volatile } = state;
  volatile.hashMismatches += 1;
  const votes = [...active.votes].map(([workerId, hash]) => `${workerId} ${hash}`).join(", ");
  const detail = mustRepeat(state, active)
    ? `${votes}; journal ${committedHash(state, active.manifest.step)}`
    : votes;
  if (volatile.hashMismatches >= 2) {
    const majority = mustRepeat(state, active) ? null : majorityHash(active);
    for (const { workerId } of active.members) {
      const member = volatile.members.get(workerId);
      if (member !== undefined && active.votes.get(workerId) !== majority) member.step = -1;
    }
    volatile.hashMismatches = 0;
  }
  abort(state, "hashMismatch", detail, out);
}

function majorityHash(active: ActiveStep): string | null {
  const counts = new Map<string, number>();
  for (const hash of active.votes.values()) counts.set(hash, (counts.get(hash) ?? 0) + 1);
  for (const [hash, count] of counts) if (count * 2 > active.members.length) return hash;
  return null;
}

/** Ends the generation without effect; the same step starts again in a later one. Voluntary departures do not count. */
export function abort(
  state: CoordinatorState,
  reason: AbortReason,
  detail: string,
  out: Outbox,
  isCounted = true,
): void {
  const { volatile, config } = state;
  const active = volatile.activeStep;
  if (active === null) return;
  volatile.activeStep = null;
  volatile.counters.stepsAborted += 1;
  volatile.lastAbort = `${reason}: ${detail}`;
  const { generation, members } = active;
  const { step } = active.manifest;
  out.send({ type: "AbortStep", generation, step, reason, detail, members });
  if (!isCounted) return;
  volatile.stepAborts += 1;
  if (volatile.stepAborts < config.maxStepAttempts) return;
  out.stop(
    reason === "hashMismatch" ? "INTERNAL" : "BUDGET",
    `optimizer step ${step} was aborted ${volatile.stepAborts} times in a row (last: ${volatile.lastAbort}); ` +
      (reason === "hashMismatch"
        ? "the learners compute different results: run them on the same kind of machine and engine"
        : "check the learners' logs and the network between them and the coordinator, or raise cluster.stepTimeoutMs"),
  );
}

/** A learner is gone: without it its generation cannot complete, unless it is a round that others still train. */
export function abortIfMember(
  state: CoordinatorState,
  member: Member,
  isCounted: boolean,
  out: Outbox,
): void {
  const active = state.volatile.activeStep;
  if (active === null || !isMember(active, member)) return;
  if (active.isTraining && active.members.length > 1) return leaveRound(active, member, out);
  abort(state, "memberLost", `${member.workerId} is gone`, out, isCounted);
}
