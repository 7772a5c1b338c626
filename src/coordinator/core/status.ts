/** A plain snapshot of the run for `troupe status`, summary.json and the metrics. */
import type { LedgerCounts } from "./durable.js";
import type { CoordinatorState, CoreCounters } from "./state.js";
import type { WorkerRole } from "../../shared/roles.js";

export interface MemberStatus {
  readonly workerId: string;
  readonly role: WorkerRole;
  readonly incarnation: number;
  readonly state: "joining" | "healing" | "ready" | "draining";
  /** Until the lease ends without a heartbeat. */
  readonly leaseLeftMs: number;
  /** Rollouts. */
  readonly tasks: number;
  readonly policyVersion: number;
  /** Learners; -1 when it holds no usable state. */
  readonly step: number;
}

export interface CoordinatorStatus {
  readonly epoch: number;
  readonly generation: number;
  readonly stage: string | null;
  readonly finishedStages: readonly string[];
  /** The one being collected for or trained. */
  readonly iteration: number;
  /** The newest one collected for; beyond `iteration` when experience is collected ahead. */
  readonly collectingIteration: number;
  readonly committedIteration: number;
  readonly policyVersion: number;
  /** Last finished optimizer step of the stage. */
  readonly step: number;
  /** Over the whole run. */
  readonly committedSteps: number;
  readonly skippedSteps: number;
  /** "paused": a step is due and too few learners are ready. */
  readonly learning: "idle" | "waiting" | "running" | "replaying" | "paused" | "stopped";
  readonly ledger: LedgerCounts;
  /** `waiting` tasks have no worker yet; `collections` wait for room in the buffer. */
  readonly tasks: { readonly waiting: number; readonly leased: number; readonly collections: number };
  readonly members: readonly MemberStatus[];
  readonly readyLearners: number;
  readonly rollouts: number;
  readonly desired: Readonly<Record<WorkerRole, number | null>>;
  readonly checkpointId: string | null;
  readonly lastAbort: string;
  readonly stopped: { readonly code: string; readonly diagnosis: string } | null;
  readonly counters: CoreCounters;
}

export function status(state: CoordinatorState): CoordinatorStatus {
  const { durable, volatile } = state;
  const members = [...volatile.members.values()];
  const leased = [...volatile.tasks.values()].filter((task) => task.leases.length > 0).length;
  return {
    epoch: durable.epoch,
    generation: durable.generation,
    stage: durable.stage,
    finishedStages: [...durable.finishedStages],
    iteration: Math.min(durable.iteration, durable.committedIteration + 1),
    collectingIteration: durable.iteration,
    committedIteration: durable.committedIteration,
    policyVersion: durable.policyVersion,
    step: durable.finishedStep,
    committedSteps: durable.committedSteps,
    skippedSteps: durable.skippedSteps,
    learning: learningOf(state),
    ledger: {
      ...durable.counts,
      trainedByStaleness: { ...durable.counts.trainedByStaleness },
      dropped: { ...durable.counts.dropped },
      abandoned: { ...durable.counts.abandoned },
    },
    tasks: { waiting: volatile.tasks.size - leased, leased, collections: volatile.waitingCollections.length },
    members: members.map((member) => ({
      workerId: member.workerId,
      role: member.role,
      incarnation: member.incarnation,
      state: member.heal === null ? member.state : "healing",
      leaseLeftMs: Math.max(0, member.leaseExpiresAtMs - volatile.nowMs),
      tasks: member.leases.size,
      policyVersion: member.policyVersion,
      step: member.step,
    })),
    readyLearners: members.filter((member) => member.role === "learner" && member.state === "ready").length,
    rollouts: members.filter((member) => member.role === "rollout").length,
    desired: { ...durable.desired },
    checkpointId: durable.checkpoint?.checkpointId ?? null,
    lastAbort: volatile.lastAbort,
    stopped: volatile.stopped,
    counters: { ...volatile.counters },
  };
}

function learningOf(state: CoordinatorState): CoordinatorStatus["learning"] {
  const { volatile } = state;
  if (volatile.stopped !== null) return "stopped";
  if (volatile.activeStep !== null) return volatile.activeStep.isReplay ? "replaying" : "running";
  if (volatile.isPaused) return "paused";
  return volatile.stepRequest === null ? "idle" : "waiting";
}
