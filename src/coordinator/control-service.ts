/** Status, scale, progress and stop, for people and tools. */
import type { EventBus } from "../observability/progress.js";
import type { ControlServiceHandlers } from "../rpc/generated/troupe/v1/ControlService.js";
import type { StatusReply } from "../rpc/generated/troupe/v1/StatusReply.js";
import { toServiceError } from "../rpc/status.js";
import { configError } from "../shared/errors.js";
import { status } from "./core/index.js";
import type { CoreHost } from "./core-host.js";
import { ledgerOf } from "./ledger-view.js";
import type { RunClock } from "./run-clock.js";
import type { WorkerDirectory } from "./worker-directory.js";

export interface ControlOptions {
  readonly host: CoreHost;
  readonly directory: WorkerDirectory;
  readonly bus: EventBus;
  readonly runId: string;
  /** How long coordinators have directed the run. */
  readonly clock: Pick<RunClock, "seconds">;
  /** Ends the run for everybody. */
  readonly stop: (reason: string) => void;
}

export function makeControlService({
  host,
  directory,
  bus,
  runId,
  clock,
  stop,
}: ControlOptions): ControlServiceHandlers {
  const desired = () => {
    const { rollout, learner } = host.state.durable.desired;
    return { ...(rollout === null ? {} : { rollout }), ...(learner === null ? {} : { learner }) };
  };
  const snapshot = (): StatusReply => {
    const now = status(host.state);
    return {
      runId,
      stage: now.stage ?? "",
      epoch: now.epoch,
      iteration: Math.max(0, now.iteration),
      optimizerStep: now.step,
      policyVersion: Math.max(0, now.policyVersion),
      paused: now.learning === "paused",
      workers: now.members.map(({ workerId, role, state }) => {
        const card = directory.get(workerId);
        return {
          workerId,
          role,
          state,
          host: card?.host ?? "",
          pid: card?.pid ?? 0,
          metricsAddress: card?.metricsAddress ?? "",
        };
      }),
      ledger: ledgerOf(now.ledger),
      desired: desired(),
      collectingIteration: Math.max(0, now.collectingIteration),
      stalenessLimit: host.state.config.maxStalenessVersions,
      seconds: clock.seconds,
    };
  };
  return {
    Status: (_call, callback) => {
      // The core is ahead of its journal: a step it shows could be undone by a crash before it is on disk.
      const reply = snapshot();
      host.whenDurable(() => callback(null, reply));
    },
    Scale: ({ request }, callback) => {
      const { role, count } = request;
      if (role !== "rollout" && role !== "learner") {
        return callback(
          toServiceError(configError(`role: expected rollout or learner, got ${JSON.stringify(role)}`)),
        );
      }
      if (count > 1024 || (role === "learner" && count === 0)) {
        return callback(
          toServiceError(
            configError(
              `count: expected ${role === "learner" ? 1 : 0} to 1024 ${role} processes, got ${count}`,
            ),
          ),
        );
      }
      host.dispatch({ type: "ScaleRequested", role, desired: count });
      callback(null, { desired: { ...desired(), [role]: count } });
    },
    Watch: (call) => {
      const unsubscribe = bus.subscribe((event) => void call.write({ json: JSON.stringify(event) }), {
        after: 0,
      });
      const ended = bus.subscribe((event) => {
        if (event.type === "run-finished") call.end();
      });
      const leave = () => {
        unsubscribe();
        ended();
      };
      call.on("cancelled", leave);
      call.on("close", leave);
    },
    Stop: ({ request }, callback) => {
      stop(request.reason || "asked to stop");
      callback(null, {});
    },
  };
}
