/**
 * The dashboard's view of the run, from the core's state and what workers told about themselves. The core is ahead of its
 * journal: what it shows could be undone by a crash, so it is told once it is on disk.
 */
import type { Config } from "../config/schema.js";
import type { EventBus } from "../observability/progress.js";
import type { RunStatus, WorkerStatus } from "../observability/run-status.js";
import { packageVersion } from "../shared/paths.js";
import type { Metrics } from "../observability/metrics.js";
import { status, type MemberStatus } from "./core/index.js";
import type { CoreHost } from "./core-host.js";
import { ledgerOf } from "./ledger-view.js";
import type { RunClock } from "./run-clock.js";
import type { WorkerDirectory } from "./worker-directory.js";

export interface RunStatusOptions {
  readonly host: CoreHost;
  readonly directory: WorkerDirectory;
  readonly bus: EventBus;
  readonly config: Config;
  readonly runId: string;
  /** How long coordinators have directed the run. */
  readonly clock: Pick<RunClock, "seconds">;
  /** Bytes of experiences that have arrived and are not on disk yet. */
  readonly intakeBytes: () => number;
  /** Gets the numbers that only the core knows; the status is asked for at every scrape. */
  readonly metrics: Metrics<"coordinator">;
}

export function makeRunStatus({
  host,
  directory,
  bus,
  config,
  runId,
  clock,
  intakeBytes,
  metrics,
}: RunStatusOptions): () => Promise<RunStatus> {
  let unit: RunStatus["unit"] = "step";
  let completedUnits = 0;
  let totalUnits = 0;
  bus.subscribe((event) => {
    if (event.type === "stage-started") ({ unit, completedUnits, totalUnits } = event);
    if (event.type === "progress") ({ completedUnits, totalUnits } = event);
  });
  const stateOf = (member: MemberStatus | undefined): WorkerStatus["state"] => {
    if (member === undefined) return "lost";
    if (member.state === "draining") return "draining";
    return member.leaseLeftMs < config.cluster.leaseTtlMs / 2 ? "suspect" : "alive";
  };
  const snapshot = (): RunStatus => {
    const now = status(host.state);
    const members = new Map(now.members.map((member) => [member.workerId, member]));
    metrics.rolloutTasks.set({ state: "pending" }, now.tasks.waiting);
    metrics.rolloutTasks.set({ state: "leased" }, now.tasks.leased);
    metrics.intakeBytes.set(intakeBytes());
    metrics.bufferBytes.set(now.ledger.bufferedBytes);
    return {
      runId,
      name: config.name,
      version: packageVersion,
      stage: now.stage,
      unit,
      completedUnits,
      totalUnits,
      policyVersion: now.policyVersion,
      generation: now.generation,
      coordinatorEpoch: now.epoch,
      elapsedMs: clock.seconds * 1000,
      ledger: ledgerOf(now.ledger),
      optimizerStep: now.step,
      isPaused: now.learning === "paused",
      workers: directory.list().map((card) => ({
        workerId: card.workerId,
        role: card.role,
        state: stateOf(members.get(card.workerId)),
        host: card.host,
        pid: card.pid,
        metricsAddress: card.metricsAddress,
        activity: card.activity,
        policyVersion: card.policyVersion,
        restarts: card.restarts,
        lastHeartbeatAgeMs: Date.now() - card.lastHeardAtMs,
      })),
      limits: {
        requiredWorkers: { rollout: now.stage === "ppo" ? 1 : 0, learner: config.cluster.minLearners },
        bufferExperiences: host.state.config.capacityExperiences,
        stalenessVersions: host.state.config.maxStalenessVersions,
      },
    };
  };
  return async () => {
    const answer = snapshot();
    await new Promise<void>((resolve) => host.whenDurable(resolve));
    return answer;
  };
}
