/** What every worker process sets up around its role: log, metrics endpoint, the tie to the coordinator. */
import { join } from "node:path";
import { createLogger, type Logger } from "../observability/logger.js";
import { startHttpServer } from "../observability/http-server.js";
import { createMetrics, type Metrics } from "../observability/metrics.js";
import { JoinTokens } from "../rpc/auth.js";
import { machineMemory } from "../shared/machine-memory.js";
import { serveCoordinator, type Holdings, type Session } from "./coordinator-link.js";
import type { WorkerOptions } from "./worker-options.js";
import type { WorkerRole } from "../shared/roles.js";

const NOT_REGISTERED = "not registered with the coordinator";
const NOT_READY = "registered; the coordinator gives it no work yet, or it is leaving";

export interface WorkerContext<R extends WorkerRole> {
  readonly logger: Logger;
  readonly metrics: Metrics<R>;
}

export interface WorkerBody<R extends WorkerRole> {
  /** What this process holds, told to the coordinator. */
  readonly holdings: () => Holdings;
  /** Lets go of what it holds, since it belongs to another run. */
  readonly forget: () => void;
  /** One registration's work; returns when its stream ended. */
  readonly perform: (session: Session, context: WorkerContext<R>) => Promise<void>;
}

export async function startWorker<R extends WorkerRole>(
  role: R,
  options: WorkerOptions,
  body: WorkerBody<R>,
): Promise<void> {
  const tokens = options.tokenFile ? JoinTokens.read(options.tokenFile) : undefined;
  const token = tokens?.forRole(role);
  const logger = createLogger({
    role,
    workerId: options.workerId,
    secrets: tokens?.secrets ?? [],
    ...(options.logDir === undefined
      ? {}
      : { file: join(options.logDir, `${options.workerId ?? `${role}-${process.pid}`}.ndjson`) }),
  });
  const metrics = createMetrics(role);
  // Both roles have these two; the compiler cannot see it through the type parameter.
  const link = metrics as unknown as Metrics<WorkerRole>;
  // "ready" makes a rolling restart go on to the next process, which may hold what this one still has to copy.
  let readiness: true | string = NOT_REGISTERED;
  const http = await startHttpServer({
    registry: metrics.registry,
    host: options.httpHost,
    port: options.httpPort,
    readiness: () => readiness,
  });
  logger.info(
    { pid: process.pid, metrics: `${http.url}/metrics`, coordinator: options.coordinator },
    `${role} worker started`,
  );
  try {
    await serveCoordinator(
      {
        role,
        coordinator: options.coordinator,
        access: { token, tls: options.tls, insecure: options.insecure },
        workerId: options.workerId,
        metricsAddress: http.address,
        machine: {
          memoryBytes: machineMemory().usableBytes,
          rollouts: Math.max(options.together?.rollouts ?? 0, Number(role === "rollout")),
          learners: Math.max(options.together?.learners ?? 0, Number(role === "learner")),
        },
        logger,
        signal: options.signal,
        holdings: body.holdings,
        onOtherRun: body.forget,
        onHeartbeat: (roundTripMs, isReady) => {
          link.heartbeatRoundTrip.observe(roundTripMs / 1000);
          readiness = isReady || NOT_READY;
        },
        onReconnect: () => link.reconnects.inc(),
      },
      async (session) => {
        readiness = NOT_READY;
        try {
          await body.perform(session, { logger, metrics });
        } finally {
          readiness = NOT_REGISTERED;
        }
      },
    );
    logger.info("left the run");
  } finally {
    await http.close();
    await logger.close();
  }
}
