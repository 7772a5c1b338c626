/**
 * Every kind of event the core can be given, against the state at hand: a move names things loosely ("the n-th member"),
 * mostly such that they fit, now and then out of date. The table is complete: a new event does not compile without a move.
 */
import fc from "fast-check";
import type { CoordinatorEvent, CoordinatorState } from "../../../../src/coordinator/core/index.js";

type EventType = CoordinatorEvent["type"];

/** What makes a run advance comes up more often than what breaks it. */
const ADVANCING: readonly EventType[] = [
  "WorkerReady",
  "WorkerReady",
  "WorkerHeartbeat",
  "ExperiencesReceived",
  "ExperiencesReceived",
  "ExperiencesReceived",
  "CollectRequested",
  "StepRequested",
  "RoundTrained",
  "RoundTrained",
  "StepVote",
  "StepVote",
  "StepVote",
  "LearnerHealed",
];

export const moveArb = fc.record({
  type: fc.oneof(
    { weight: 1, arbitrary: fc.nat({ max: 10_000 }).map((n) => EVENT_TYPES[n % EVENT_TYPES.length]) },
    { weight: 3, arbitrary: fc.constantFrom(...ADVANCING) },
  ),
  a: fc.nat({ max: 5 }),
  b: fc.nat({ max: 3 }),
  isSo: fc.boolean(),
  waitMs: fc.constantFrom(0, 0, 0, 0, 1, 1, 20, 20, 100, 100, 400, 1_100, 2_500),
});
export interface Move {
  readonly type: EventType;
  readonly a: number;
  readonly b: number;
  readonly isSo: boolean;
  readonly waitMs: number;
}

const move = (type: EventType, a: number, isSo = true): Move => ({ type, a, b: 2, isSo, waitMs: 0 });

/** A cluster at work: without it most sequences never get past an empty stage. */
export const PRELUDE: readonly Move[] = [
  move("StageStarted", 0),
  move("VersionPublished", 1),
  move("CollectRequested", 2),
  move("WorkerRegistered", 3),
  move("WorkerRegistered", 4),
  move("WorkerRegistered", 5, false),
  move("WorkerRegistered", 0, false),
  move("LearnerHealed", 1),
  move("LearnerHealed", 2),
  move("WorkerReady", 3),
  move("WorkerReady", 4),
];

const idOf = (iteration: number, prompt: number): string => `${iteration}/${prompt}/0`;

/** What a move may speak of. */
function situation({ durable, volatile }: CoordinatorState, { a, b }: Move) {
  const members = [...volatile.members.values()];
  const member = members[a % Math.max(1, members.length)];
  const tasks = [...volatile.tasks.values()];
  const task = tasks[a % Math.max(1, tasks.length)];
  const active = volatile.activeStep;
  const voter = active?.members[a % active.members.length];
  const healing = members.find((other) => other.heal !== null);
  // Now and then a signature that is out of date.
  const signed = {
    workerId: member?.workerId ?? "nobody",
    incarnation: (member?.incarnation ?? 7) - (b === 3 ? 1 : 0),
  };
  const held = task?.leases[0];
  return {
    ...{ durable, volatile, members, task, active, signed },
    iteration: durable.committedIteration + 1,
    ofTask: {
      workerId: held?.workerId ?? signed.workerId,
      incarnation: held?.incarnation ?? signed.incarnation,
      taskId: task?.taskId ?? "none",
      attempt: held?.attempt ?? 1,
    },
    ofStep: {
      workerId: voter?.workerId ?? signed.workerId,
      incarnation: voter?.incarnation ?? signed.incarnation,
      generation: (active?.generation ?? 0) - (b === 3 ? 1 : 0),
      step: active?.manifest.step ?? 1,
    },
    ofHeal: {
      workerId: healing?.workerId ?? signed.workerId,
      incarnation: healing?.incarnation ?? signed.incarnation,
      healId: (healing?.heal?.healId ?? 0) - (b === 3 ? 1 : 0),
      step: healing?.heal?.step ?? 0,
    },
  };
}

type Makers = {
  readonly [T in EventType]: (
    at: ReturnType<typeof situation>,
    move: Move,
  ) => Extract<CoordinatorEvent, { type: T }>;
};

const MAKERS: Makers = {
  CoordinatorStarted: () => ({ type: "CoordinatorStarted" }),
  RunClosing: () => ({ type: "RunClosing" }),
  Tick: () => ({ type: "Tick" }),
  WorkerRegistered: ({ durable }, { a, b, isSo }) => {
    const position = { stage: durable.stage ?? "", step: durable.finishedStep, hash: "" };
    return {
      type: "WorkerRegistered",
      workerId: `${isSo ? "r" : "l"}${a}`,
      role: isSo ? "rollout" : "learner",
      requestId: `${a}${b}`,
      position: isSo || b < 2 ? null : position,
      policyVersion: isSo ? durable.policyVersion : -1,
    };
  },
  WorkerReady: ({ durable, signed }, { b }) => ({
    type: "WorkerReady",
    ...signed,
    credits: b,
    policyVersion: durable.policyVersion,
  }),
  WorkerHeartbeat: ({ durable, signed, ofTask }, { a, b }) => ({
    type: "WorkerHeartbeat",
    ...signed,
    policyVersion: durable.policyVersion,
    appliedStep: durable.finishedStep - (b === 2 ? 1 : 0),
    progress: [{ taskId: ofTask.taskId, attempt: ofTask.attempt, tokens: a }],
  }),
  WorkerDisconnected: ({ signed }) => ({ type: "WorkerDisconnected", ...signed }),
  WorkerLeft: ({ signed }) => ({ type: "WorkerLeft", ...signed }),
  WorkerDraining: ({ signed }) => ({ type: "WorkerDraining", ...signed }),
  PolicyHeld: ({ durable, members }, { b }) => ({
    type: "PolicyHeld",
    workers: members.map(({ workerId, incarnation }) => ({
      workerId,
      incarnation: incarnation - (b === 3 ? 1 : 0),
    })),
    policyVersion: durable.policyVersion,
  }),
  ExperiencesReceived: ({ durable, task, iteration, ofTask }, { a, b }) => {
    const { taskId, attempt, ...from } = ofTask;
    const experienceId = [...(task?.openIds ?? [])][b] ?? idOf(iteration, b);
    return {
      type: "ExperiencesReceived",
      ...from,
      // Some twice in one message, some with a neighbour that is judged differently.
      experiences: [experienceId, ...(a > 2 ? [idOf(iteration, a - 3)] : [])].map((id, i) => ({
        taskId,
        attempt,
        experienceId: id,
        policyVersion: durable.policyVersion - (a === 5 ? 1 : 0),
        bytes: 10 * (b + 1),
        isFinite: a !== 4 || i > 0,
      })),
    };
  },
  EvaluationReceived: ({ ofTask }) => ({ type: "EvaluationReceived", ...ofTask }),
  TaskFinished: ({ ofTask }) => ({ type: "TaskFinished", ...ofTask }),
  TaskFailed: ({ ofTask }) => ({ type: "TaskFailed", ...ofTask, reason: "x" }),
  StageStarted: (_, { b }) => ({ type: "StageStarted", stage: b > 0 ? "ppo" : "ppo2" }),
  StageFinished: ({ durable }, { a }) => ({
    type: "StageFinished",
    stage: a === 0 ? (durable.stage ?? "ppo") : "another",
  }),
  IterationStarted: ({ iteration }, { a }) => ({ type: "IterationStarted", iteration, promptCursor: a }),
  IterationCommitted: ({ iteration }, { a }) => ({
    type: "IterationCommitted",
    iteration,
    promptCursor: 0,
    resume: { n: a },
  }),
  CollectRequested: ({ durable, iteration }, { isSo }) => {
    const asked = iteration + (isSo ? 0 : 1);
    const experienceIds = [0, 1, 2].map((prompt) => idOf(asked, prompt));
    return {
      type: "CollectRequested",
      iteration: asked,
      policyVersion: durable.policyVersion,
      tasks: [{ taskId: `t${asked}`, experienceIds }],
    };
  },
  CollectionsCancelled: () => ({ type: "CollectionsCancelled" }),
  EvaluationRequested: ({ durable }, { a, b }) => ({
    type: "EvaluationRequested",
    evaluationId: `e${a}`,
    policyVersion: durable.policyVersion,
    tasks: Array.from({ length: b }, (_, i) => ({
      taskId: `e${a}-${i}`,
      experienceIds: [`eval/${a}/${2 * i}`, `eval/${a}/${2 * i + 1}`],
    })),
  }),
  VersionPublished: ({ durable }, { isSo }) => ({
    type: "VersionPublished",
    policyVersion: durable.policyVersion + (isSo ? 1 : 0),
    sha256: "s",
  }),
  StepRequested: ({ durable }, { b, isSo }) => {
    const buffered = [...durable.experiences].filter(([, { status }]) => status === "buffered");
    return {
      type: "StepRequested",
      stage: durable.stage ?? "ppo",
      step: durable.finishedStep + 1,
      experienceIds: buffered.slice(0, b).map(([id]) => id),
      input: null,
      shardCount: 4,
      isFinalUse: isSo,
    };
  },
  StepComputed: ({ ofStep }) => ({ type: "StepComputed", ...ofStep }),
  StepVote: ({ ofStep }, { b, isSo }) => ({
    type: "StepVote",
    ...ofStep,
    isFinite: !(b === 2 && isSo),
    hash: b === 1 && isSo ? "odd" : `h${ofStep.step}`,
  }),
  StepApplied: ({ durable, signed }, { b }) => ({
    type: "StepApplied",
    ...signed,
    stage: durable.stage ?? "ppo",
    step: durable.finishedStep - (b === 2 ? 1 : 0),
  }),
  ApplyFailed: ({ durable, signed }) => ({
    type: "ApplyFailed",
    ...signed,
    generation: durable.generation,
    step: durable.finishedStep,
    code: "INTERNAL",
    reason: "x",
  }),
  LearnerBehind: ({ durable, ofStep }, { b }) => {
    const { workerId, incarnation, generation } = ofStep;
    return {
      type: "LearnerBehind",
      workerId,
      incarnation,
      generation,
      appliedStep: durable.finishedStep - b,
    };
  },
  StateLent: ({ ofHeal: { workerId, incarnation, healId } }) => ({
    type: "StateLent",
    workerId,
    incarnation,
    healId,
  }),
  LearnerHealed: ({ durable, ofHeal: { step, ...heal } }) => ({
    type: "LearnerHealed",
    ...heal,
    position: { stage: durable.stage ?? "", step, hash: "" },
  }),
  LearnerHealFailed: ({ ofHeal: { workerId, incarnation, healId } }) => ({
    type: "LearnerHealFailed",
    workerId,
    incarnation,
    healId,
    reason: "x",
  }),
  ReduceFailed: ({ ofStep: { generation, step }, signed }, { isSo }) => ({
    type: "ReduceFailed",
    generation,
    step,
    workerId: isSo ? signed.workerId : null,
    reason: "x",
  }),
  LearnerSilent: ({ signed }) => ({ type: "LearnerSilent", ...signed, reason: "x" }),
  LearnersAwaited: (_, { isSo }) => ({ type: "LearnersAwaited", isAwaited: isSo }),
  // One against all others: with fewer than three of them nobody can tell who is right, and the run ends.
  StatesDiffer: ({ durable, members }, { b }) => ({
    type: "StatesDiffer",
    step: durable.finishedStep,
    states: [
      "l9",
      "l8",
      ...members.filter(({ role }) => role === "learner").map(({ workerId }) => workerId),
    ].map((workerId, i) => ({ workerId, sha256: i === 2 + (b % 2) ? "odd" : "s" })),
  }),
  RoundTrained: ({ active, ofStep: { generation, step } }, { a, b }) => {
    const trained = (active?.members ?? []).filter((_, i) => b !== 1 || i === a % active!.members.length);
    const listed = active?.manifest.experienceIds ?? [];
    return {
      type: "RoundTrained",
      generation,
      step,
      workerIds: trained.map(({ workerId }) => workerId),
      leftOut: a === 5 ? listed.slice(0, 1) : [],
    };
  },
  CheckpointSaved: ({ durable }, { a, b }) => ({
    type: "CheckpointSaved",
    checkpointId: `c${a}`,
    stage: durable.stage ?? "ppo",
    step: Math.max(0, durable.finishedStep - b),
    resume: null,
  }),
  CheckpointDamaged: ({ durable }, { a, b }) => ({
    type: "CheckpointDamaged",
    checkpointId: b > 0 ? (durable.checkpoint?.checkpointId ?? `c${a}`) : `c${a}`,
    reason: "x",
  }),
  ScaleRequested: (_, { a, isSo }) => ({
    type: "ScaleRequested",
    role: isSo ? "learner" : "rollout",
    desired: a,
  }),
};

const EVENT_TYPES = Object.keys(MAKERS) as EventType[];

export function toEvent(state: CoordinatorState, at: Move): CoordinatorEvent {
  const make = MAKERS[at.type] as (of: ReturnType<typeof situation>, move: Move) => CoordinatorEvent;
  return make(situation(state, at), at);
}
