/**
 * The coordinator's whole state: the durable part (durable.ts) and the volatile part, which a restart loses and the
 * workers' registrations build again.
 */
import type { ErrorCode } from "../../shared/errors.js";
import type { ExperienceId } from "../../rl/types.js";
import type { CoreConfig } from "./config.js";
import { emptyDurableState, type DurableState, type StepManifest } from "./durable.js";
import type { HealSource, Redelivery, StepMember, TaskKind } from "./effects.js";
import { FreeWorkers } from "./free-workers.js";
import { SinglyHeld } from "./hedging.js";
import { WaitingTasks } from "./waiting-tasks.js";
import type { LearnerPosition, StepRequested, CollectRequested } from "./events.js";
import type { WorkerRole } from "../../shared/roles.js";

export interface Member {
  readonly workerId: string;
  readonly role: WorkerRole;
  readonly incarnation: number;
  readonly requestId: string;
  /** "joining": a learner that is not at the group's step yet. "ready": may be given work. */
  state: "joining" | "ready" | "draining";
  leaseExpiresAtMs: number;
  /** Draining: until when a learner stays for its state's sake; null while nobody told it to leave. */
  drainUntilMs: number | null;
  /** Rollouts: most tasks it holds at a time; 0 until WorkerReady. */
  credits: number;
  /** Rollouts: policy it holds. */
  policyVersion: number;
  /** Rollouts: version it was last told to fetch, so that it is told once. */
  refreshedTo: number;
  /** Rollouts: tasks it holds, oldest first. */
  readonly leases: Set<string>;
  /** Rollouts: what it holds must stay the only thing. */
  isReserved: boolean;
  /** Learners: last step of the stage it stands at; -1 when it holds no usable state. */
  step: number;
  /** Learners: the update it held when it registered, not looked at yet. */
  voted: NonNullable<LearnerPosition["voted"]> | null;
  /** Learners: since when its own word differs from `step`; null when it does not. */
  differsSinceMs: number | null;
  /** Learners: consecutive copies that came too late: the others had trained on. */
  lateHeals: number;
  heal: {
    readonly healId: number;
    readonly source: HealSource;
    readonly step: number;
    /** The peer's state is with the coordinator: the copy does not need the peer any more. */
    isLent: boolean;
    /** Learners that are ready wait until then. */
    readonly holdsUpUntilMs: number;
    readonly deadlineMs: number;
  } | null;
}

export interface TaskLease {
  readonly workerId: string;
  readonly incarnation: number;
  readonly attempt: number;
  readonly policyVersion: number;
  /** What this attempt was asked for. */
  readonly experienceIds: readonly ExperienceId[];
  /** The holder was given nothing beside it. */
  readonly isAlone: boolean;
  /** When it was handed out. */
  readonly startedAtMs: number;
  /** Infinity while it waits behind another task of its holder. */
  expiresAtMs: number;
  progress: number;
}

/** What speaks against one prompt: attempts that failed with nothing else in hand (poison.ts). */
export interface Suspicion {
  failures: number;
  /** Of them: those in which the worker was lost. */
  crashes: number;
  readonly failedBy: Set<string>;
  /** Rollout workers lost before the first of them. */
  readonly lossesBefore: number;
}

export interface Task {
  readonly taskId: string;
  /** Grows with every task: the older one goes first. */
  readonly order: number;
  readonly kind: TaskKind;
  /** Collection (experience) or evaluation it belongs to. */
  readonly owner: string | number;
  readonly policyVersion: number;
  /** Ids not resolved yet; the task is over when none is left. */
  readonly openIds: Set<ExperienceId>;
  /** Number of the last attempt handed out. */
  attempts: number;
  /** Attempts that failed. */
  failures: number;
  /** Who failed while it was handed out as a whole. */
  readonly failedBy: Set<string>;
  readonly alone: Map<ExperienceId, Suspicion>;
  /** attempt -> who got it, so that only they can deliver it, and what was asked for. */
  readonly assigned: Map<number, TaskLease>;
  /** Who works on it: nobody, one worker, or two when the first is slow (hedging.ts). */
  readonly leases: TaskLease[];
  /** Why it was last taken from a holder; null while it was not. */
  lost: Redelivery | null;
  /** It failed so often that its prompts are handed out one at a time, each alone, to find the one that is to blame. */
  isIsolated: boolean;
  /** Until then only workers that did not fail it may take it. */
  holdUntilMs: number;
}

export interface Evaluation {
  readonly evaluationId: string;
  readonly taskIds: ReadonlySet<string>;
  readonly openTaskIds: Set<string>;
  readonly givenUp: ExperienceId[];
}

/** A learner that was waited for in vain (blame.ts). */
export interface Suspect {
  /** Consecutive aborts blamed on it. */
  blame: number;
  /** How often it was fenced for that. */
  fenced: number;
  /** How often in a row it did not answer what it was asked between steps. */
  silences: number;
  /** Until then the others go on without it. */
  untilMs: number;
}

export interface ActiveStep {
  readonly manifest: StepManifest;
  readonly generation: number;
  members: readonly StepMember[];
  /** workerIds that are through with their part and wait for the others'. */
  readonly computed: Set<string>;
  /** workerId -> hash */
  readonly votes: Map<string, string>;
  deadlineMs: number;
  readonly isReplay: boolean;
  /** A round whose members still train: it goes on without those who leave. */
  isTraining: boolean;
  /** Experiences of a trained round that none of its members got to. */
  leftOut: readonly ExperienceId[];
}

/** Counters since this process started, for metrics. */
export interface CoreCounters {
  fencedEvents: number;
  staleVotes: number;
  staleExperiences: number;
  duplicateExperiences: number;
  rejectedExperiences: number;
  tasksReassigned: number;
  tasksHedged: number;
  membersLost: number;
  stepsAborted: number;
  stepsReplayed: number;
  heals: number;
}

export interface VolatileState {
  /** Latest time given to `reduce`; time never runs backwards inside the core. */
  nowMs: number;
  nextIncarnation: number;
  nextHealId: number;
  /** In join order. */
  readonly members: Map<string, Member>;
  /** Oldest first. */
  readonly tasks: Map<string, Task>;
  nextTaskOrder: number;
  // What follows is derived from members and tasks and kept up where they change (members.ts, tasks.ts).
  readonly freeWorkers: FreeWorkers;
  /** Longest silent first. */
  readonly silent: Set<Member>;
  readonly learners: Set<Member>;
  /** Rollout workers that have said that they take tasks, and are not leaving. */
  readonly takers: Set<Member>;
  readonly draining: Set<Member>;
  readonly waitingTasks: WaitingTasks;
  readonly singlyHeld: SinglyHeld;
  /** Leases of what is at work, longest without progress first. */
  readonly running: Map<TaskLease, Task>;
  /** Tasks that were lost a moment ago, longest ago first. */
  readonly heldBack: Set<Task>;
  /** Tasks by owner; an owner without one is complete. */
  readonly openTasks: Map<string | number, number>;
  /** Rollout workers lost without having said that they leave. */
  rolloutsLost: number;
  /** Open ids of the experience tasks that are held. */
  leasedExperiences: number;
  readonly evaluations: Map<string, Evaluation>;
  /** Collections waiting for room, oldest first. */
  readonly waitingCollections: (CollectRequested & { readonly size: number })[];
  /** Iterations whose completion the train loop still waits for. */
  readonly awaitedCollections: Set<number>;
  stepRequest: StepRequested | null;
  activeStep: ActiveStep | null;
  /** Step the group of ready learners stands at; -1 when there is no group. */
  groupStep: number;
  /** The wait for a learner with newer parameters than the checkpoint's; null when nobody waits. */
  regroup: { readonly sinceMs: number; untilMs: number } | null;
  /** That wait is over: learners are being restored from storage. */
  isRestoring: boolean;
  /** Consecutive aborts of the step that is due, and how many of them were differing hashes. */
  stepAborts: number;
  hashMismatches: number;
  lastAbort: string;
  /** By workerId, over registrations; until a step commits with it. */
  readonly suspects: Map<string, Suspect>;
  /** Consecutive failures to apply a committed step, over all learners. */
  applyFailures: number;
  /** How many step timeouts a step of this stage may take: grows when learners that are alive need longer. */
  stepPatience: number;
  /** When a learner last left or was lost; null before. It may be restarting. */
  learnerLeftMs: number | null;
  /** The run is over: nobody is kept from leaving. */
  isClosing: boolean;
  /** Somebody waits for a learner to evaluate or to hand over what it holds. */
  isLearnerAwaited: boolean;
  /** Since when a step or such a request is due with too few learners, or tasks without any rollout worker; null when not so. */
  noLearnersSinceMs: number | null;
  noRolloutsSinceMs: number | null;
  /** Consecutive failures to copy parameters, over all learners. */
  healFailures: number;
  /** Who was last given up while it loaded or copied parameters, and why; "" for nobody. */
  lastLateHeal: string;
  isPaused: boolean;
  /** Running mean of how long a finished experience task took, and of how many (hedging.ts). */
  taskMs: { mean: number; count: number };
  /** Before then nobody looks for slow tasks. */
  nextHedgeLookMs: number;
  /** Largest payload seen, to judge how much room outstanding tasks will need. */
  largestExperienceBytes: number;
  stopped: { readonly code: ErrorCode; readonly diagnosis: string } | null;
  readonly counters: CoreCounters;
}

export interface CoordinatorState {
  readonly config: CoreConfig;
  readonly durable: DurableState;
  readonly volatile: VolatileState;
}

/** A fresh volatile state around the (replayed) durable one. The first event must be CoordinatorStarted. */
export function makeState(config: CoreConfig, durable: DurableState = emptyDurableState()): CoordinatorState {
  return {
    config,
    durable,
    volatile: {
      nowMs: 0,
      nextIncarnation: 0,
      nextHealId: 1,
      members: new Map(),
      tasks: new Map(),
      nextTaskOrder: 1,
      freeWorkers: new FreeWorkers(),
      silent: new Set(),
      learners: new Set(),
      takers: new Set(),
      draining: new Set(),
      waitingTasks: new WaitingTasks(),
      singlyHeld: new SinglyHeld(),
      running: new Map(),
      heldBack: new Set(),
      openTasks: new Map(),
      rolloutsLost: 0,
      leasedExperiences: 0,
      evaluations: new Map(),
      waitingCollections: [],
      awaitedCollections: new Set(),
      stepRequest: null,
      activeStep: null,
      groupStep: -1,
      regroup: null,
      isRestoring: false,
      stepAborts: 0,
      hashMismatches: 0,
      suspects: new Map(),
      applyFailures: 0,
      stepPatience: 1,
      lastAbort: "",
      learnerLeftMs: null,
      isClosing: false,
      isLearnerAwaited: false,
      noLearnersSinceMs: null,
      noRolloutsSinceMs: null,
      healFailures: 0,
      lastLateHeal: "",
      isPaused: false,
      taskMs: { mean: 0, count: 0 },
      nextHedgeLookMs: 0,
      largestExperienceBytes: 0,
      stopped: null,
      counters: {
        fencedEvents: 0,
        staleVotes: 0,
        staleExperiences: 0,
        duplicateExperiences: 0,
        rejectedExperiences: 0,
        tasksReassigned: 0,
        tasksHedged: 0,
        membersLost: 0,
        stepsAborted: 0,
        stepsReplayed: 0,
        heals: 0,
      },
    },
  };
}
