/**
 * Planted bugs, to test the simulator: each shows the reducer (or the journal) a world in which one protection does
 * nothing, by undoing it at the boundary. The product has no such switches, and only tests choose anything but "none".
 */
import {
  reduce,
  type CoordinatorEvent,
  type CoordinatorState,
  type Effect,
} from "../coordinator/core/index.js";

export const PLANTED_BUGS = [
  "no-dedupe",
  "ignore-generation",
  "ack-before-journal",
  "skip-finite-check",
  "wall-clock-lease",
  "no-fence",
  "no-staleness-bound",
  "forget-skipped",
  "forget-left-out",
  "count-departed",
  "blame-nobody",
  "no-fsync",
  "deaf-to-failure",
  "two-writers",
  "early-registration",
  "fence-experiences-only",
  "count-stale-parts",
  "trust-checkpoint",
  "slow-to-notice",
  "lose-retried",
] as const;
export type Planted = "none" | (typeof PLANTED_BUGS)[number];

export function reduceWith(
  planted: Planted,
  state: CoordinatorState,
  event: CoordinatorEvent,
  nowMs: number,
): Effect[] {
  switch (planted) {
    case "no-dedupe":
      return admitAgain(event, reduce(state, event, nowMs));
    case "ignore-generation":
      return reduce(state, asCurrentVote(state, event), nowMs);
    case "skip-finite-check":
      return reduce(state, event.type === "StepVote" ? { ...event, isFinite: true } : event, nowMs);
    case "no-fence":
      return reduce(state, asLiveMember(state, event), nowMs);
    case "forget-skipped":
      return forgetSkipped(state, reduce(state, event, nowMs));
    case "forget-left-out":
      return reduce(state, event.type === "RoundTrained" ? { ...event, leftOut: [] } : event, nowMs);
    case "count-departed":
      return reduce(state, asIfPresent(state, event), nowMs).filter(({ type }) => type !== "LeaveRound");
    case "blame-nobody":
      return event.type === "StepComputed" ? [] : reduce(state, event, nowMs);
    case "no-staleness-bound":
      return reduce(unbounded(state), fromAnyPolicy(event), nowMs);
    case "fence-experiences-only":
      return reduce(state, event.type === "ExperiencesReceived" ? event : asLiveMember(state, event), nowMs);
    case "count-stale-parts":
      return reduce(state, asCurrentPart(state, event), nowMs);
    case "slow-to-notice":
      return reduce(patient(state), event, nowMs);
    case "lose-retried":
      return reduce(state, withoutRetried(event), nowMs);
    case "none":
    case "ack-before-journal": // done by the shell, which sends before it syncs
    case "deaf-to-failure": // done by the shell, which goes on after an append that failed
    case "early-registration": // done by the shell, which hears workers before it opens its epoch
    case "trust-checkpoint": // done by the shell, which does not look at what it loads
    case "no-fsync": // done by the journal, which acknowledges what only the operating system has
    case "two-writers": // done by the journal, which takes records from whoever comes
    case "wall-clock-lease": // done by the shell, which reads the wrong clock
      return reduce(state, event, nowMs);
  }
}

/** What is already admitted is admitted once more. */
function admitAgain(event: CoordinatorEvent, effects: Effect[]): Effect[] {
  if (event.type !== "ExperiencesReceived") return effects;
  return effects.flatMap((effect): Effect[] => {
    if (effect.type !== "AckExperiences") return [effect];
    const again = effect.experiences.filter((_, i) => effect.outcomes[i] === "duplicate");
    const admissions = again.map(({ experienceId, policyVersion, bytes }): Effect => {
      const experienceIds = [experienceId];
      const record = { type: "ExperiencesAdmitted", policyVersion, experienceIds, bytes: [bytes] } as const;
      return { type: "journal", record, putPayloads: experienceIds };
    });
    const outcomes = effect.outcomes.map((outcome) => (outcome === "duplicate" ? "admitted" : outcome));
    return [...admissions, { ...effect, outcomes }];
  });
}

/** What a skipped step dropped is deleted with it. */
function forgetSkipped(state: CoordinatorState, effects: Effect[]): Effect[] {
  return effects.map((effect): Effect => {
    if (effect.type !== "journal" || effect.record.type !== "StepSkipped") return effect;
    const { step } = effect.record;
    const manifest = state.durable.manifests.find((finished) => finished.step === step);
    return { ...effect, deletePayloads: manifest?.isFinalUse ? manifest.experienceIds : [] };
  });
}

/** Nobody says that a learner left, and a round's end that counts on it is taken for good: its rows are not left out. */
function asIfPresent(state: CoordinatorState, event: CoordinatorEvent): CoordinatorEvent {
  if (event.type !== "RoundTrained") return event;
  const present = new Set(state.volatile.activeStep?.members.map(({ workerId }) => workerId));
  return { ...event, workerIds: event.workerIds.filter((workerId) => present.has(workerId)) };
}

/** Votes count whatever generation they were cast in. */
function asCurrentVote(state: CoordinatorState, event: CoordinatorEvent): CoordinatorEvent {
  const active = state.volatile.activeStep;
  if (event.type !== "StepVote" || active === null) return event;
  return { ...event, generation: active.generation, step: active.manifest.step };
}

/** Experience of any age is good enough. */
function unbounded(state: CoordinatorState): CoordinatorState {
  return { ...state, config: { ...state.config, maxStalenessVersions: Infinity } };
}

function fromAnyPolicy(event: CoordinatorEvent): CoordinatorEvent {
  return event.type === "CollectRequested" ? { ...event, policyVersion: 0 } : event;
}

/** Whoever signs with a member's name is that member. */
function asLiveMember(state: CoordinatorState, event: CoordinatorEvent): CoordinatorEvent {
  if (!("incarnation" in event)) return event;
  const member = state.volatile.members.get(event.workerId);
  return member === undefined ? event : { ...event, incarnation: member.incarnation };
}

/** Whoever has computed anything is through with its part. */
function asCurrentPart(state: CoordinatorState, event: CoordinatorEvent): CoordinatorEvent {
  const active = state.volatile.activeStep;
  if (event.type !== "StepComputed" || active === null) return event;
  return { ...event, generation: active.generation, step: active.manifest.step };
}

/** An attempt at a step may take long. */
function patient(state: CoordinatorState): CoordinatorState {
  return { ...state, config: { ...state.config, stepTimeoutMs: 50 * state.config.stepTimeoutMs } };
}

/** What was handed out again is not good enough any more. */
function withoutRetried(event: CoordinatorEvent): CoordinatorEvent {
  if (event.type !== "ExperiencesReceived") return event;
  return { ...event, experiences: event.experiences.map((one) => ({ ...one, isFinite: one.attempt === 1 })) };
}
