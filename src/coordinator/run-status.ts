/** The dashboard's view of the run, from the core's state and what workers told about themselves. */
import type { Config } from "../config/schema.js";
import type { EventBus } from "../observability/progress.js";
import type { RunStatus } from "../observability/run-status.js";
import { packageVersion } from "../shared/paths.js";
import { status } from "./core/index.js";
import type { CoreHost } from "./core-host.js";
import { ledgerOf } from "./ledger-view.js";
import type { WorkerDirectory } from "./worker-directory.js";

export interface RunStatusOptions {
  readonly host: CoreHost;
  readonly directory: WorkerDirectory;
  readonly bus: EventBus;
  readonly config: Config;
  readonly runId: string;
  readonly startedMs: number;
}

export function makeRunStatus({
  host,
  directory,
  bus,
  config,
  runId,
  startedMs,
}: RunStatusOptions): () => RunStatus {
  let unit: RunStatus["unit"] = "step";
  let completedUnits = 0;
  let totalUnits = 0;
  bus.subscribe((event) => {
    if (event.type === "stage-started") ({ unit, completedUnits, totalUnits } = event);
    if (event.type === "progress") ({ completedUnits, totalUnits } = event);
  });
  return () => {
    const now = status(host.state);
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
      elapsedMs: performance.now() - startedMs,
      ledger: ledgerOf(now.ledger),
      optimizerStep: now.step,
      isPaused: now.learning === "paused",
      workers: directory.list().map((card) => ({
        workerId: card.workerId,
        role: card.role,
        state:
          now.members.find((member) => member.workerId === card.workerId)?.state === "draining"
            ? "draining"
            : "alive",
        host: card.host,
        pid: card.pid,
        metricsAddress: card.metricsAddress,
        activity: card.activity,
        policyVersion: card.policyVersion,
        restarts: card.restarts,
        lastHeartbeatAgeMs: Date.now() - card.lastHeardAtMs,
      })),
    };
  };
}
