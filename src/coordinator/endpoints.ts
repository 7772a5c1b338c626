/** Where a coordinator is reached: the workers' gRPC services, and the dashboard with its metrics. */
import { hostname } from "node:os";
import { status as grpcStatus } from "@grpc/grpc-js";
import type { Config } from "../config/schema.js";
import { startHttpServer, type HttpServer } from "../observability/http-server.js";
import { JoinTokens, checkListenAddress, type Refusal } from "../rpc/auth.js";
import { ConnectionCap, type RefusedConnection } from "../rpc/connection-cap.js";
import { makeRefusalLog } from "../rpc/refusal-log.js";
import { startRpcServer, type RpcServer, type RpcServerOptions, type Services } from "../rpc/server.js";
import type { ServerTls } from "../rpc/tls.js";
import { writeCoordinatorFile } from "../shared/coordinator-file.js";
import { makeArtifactService } from "./artifact-service.js";
import { makeControlService } from "./control-service.js";
import type { Coordinator } from "./coordinator.js";
import type { JsonValue } from "./core/index.js";
import { listenAgain } from "./listen-again.js";
import { makeMembershipService, type AdmitWorker } from "./membership-service.js";
import { makeRunStatus } from "./run-status.js";

export interface Credentials {
  readonly tokens: JoinTokens | undefined;
  readonly tls: ServerTls | undefined;
}

/** @throws {TroupeError} CONFIG when a file cannot be read, or strangers could reach the address */
export function readCredentials({ cluster }: Config): Credentials {
  const { host, tokenFile, insecure } = cluster;
  const { cert, key, clientCa } = cluster.tls;
  const tokens = tokenFile === null ? undefined : JoinTokens.read(tokenFile);
  const tls = cert === null || key === null ? undefined : { cert, key, clientCa };
  checkListenAddress(host, {
    hasToken: tokens !== undefined,
    hasTls: tls !== undefined,
    isInsecure: insecure,
  });
  return { tokens, tls };
}

export interface EndpointOptions extends Credentials {
  /** Of dashboard and metrics, which ask nobody who they are. @default 127.0.0.1 */
  readonly httpHost: string | undefined;
  /** Which workers' machines are fit for the run. */
  readonly admitWorker: AdmitWorker | undefined;
  /** A coordinator before this one may have had the ports: wait for them. Else one that is taken is said at once. */
  readonly isResumed: boolean;
}

export interface Endpoints {
  /** @param graceMs how long open calls may still take */
  close(graceMs: number): Promise<void>;
}

/**
 * Opens the epoch, listens, then says where: in the run directory and, with a standby, in NATS. In this order, since who
 * joined before the epoch is open would be given an incarnation that the coordinator before had given to another.
 * @throws {TroupeError} CONFIG when a port is taken or an address is not this machine's
 */
export async function openEndpoints(coordinator: Coordinator, options: EndpointOptions): Promise<Endpoints> {
  const { config, runDir, runId, host, bus, end, leadership, logger } = coordinator;
  const patienceMs = options.isResumed ? undefined : 0;
  const services = makeServices(coordinator, options.admitWorker);
  const serving = rpcOptions(coordinator, options);
  host.dispatch({ type: "CoordinatorStarted", config: config as unknown as JsonValue });
  await host.settled();
  end.signal.throwIfAborted();
  const server = await listenAgain(() => startRpcServer(services, serving), end.signal, patienceMs);
  const http = await listenAgain(() => openPages(coordinator, options.httpHost), end.signal, patienceMs);
  leadership?.announce(reachableAddress(config, server.address), http.url);
  await writeCoordinatorFile(runDir, {
    pid: process.pid,
    grpcAddress: server.address,
    httpAddress: http.url,
    runId,
    startedAt: new Date().toISOString(),
  });
  logger.info({ grpc: server.address, dashboard: http.url }, "coordinator listens");
  bus.publish({ type: "run-started", runId, name: config.name, stages: config.stages });
  return endpointsOf(server, http);
}

const endpointsOf = (server: RpcServer, http: HttpServer): Endpoints => ({
  close: async (graceMs) => {
    await server.close(graceMs);
    await http.close();
  },
});

function makeServices(coordinator: Coordinator, admitWorker: AdmitWorker | undefined): Services {
  const { config, host, directory, dispatcher, learners, artifacts, bus, clock, end, runId } = coordinator;
  const { metrics, logger } = coordinator;
  const { maxArtifactBytes } = config.cluster;
  return {
    membership: makeMembershipService({
      ...{ host, directory, metrics, logger, runId, config, admitWorker },
      isOver: () => end.isOver,
    }),
    rollout: dispatcher.service,
    learner: learners.service,
    artifact: makeArtifactService({ store: artifacts, host, runId, maxBytes: maxArtifactBytes }),
    control: makeControlService({ host, directory, bus, runId, clock, stop: (why) => end.stopForAll(why) }),
  };
}

function rpcOptions(
  { config: { cluster }, metrics, logger }: Coordinator,
  { tokens, tls }: Credentials,
): RpcServerOptions {
  const noteRefusal = makeRefusalLog<Refusal>(({ method, reason, peer }, suppressed) =>
    logger.warn({ method, peer, suppressed }, `call refused: ${REFUSALS[reason]}`),
  );
  const noteConnection = makeRefusalLog<RefusedConnection>(({ reason, peer }, suppressed) =>
    logger.warn({ peer, suppressed }, `connection refused: ${CONNECTION_REFUSALS[reason]}`),
  );
  const limits = { perAddress: cluster.maxConnectionsPerAddress, total: cluster.maxConnections };
  const connections = new ConnectionCap(limits, (refused) => {
    metrics.connectionsRefused.inc({ reason: refused.reason });
    noteConnection(refused);
  });
  connections.onChange = (open) => metrics.connections.set(open);
  return {
    host: cluster.host,
    port: cluster.port,
    connections,
    onUncapped: () =>
      logger.warn("this release of grpc-js does not let connections be counted: there is no limit"),
    tokens,
    tls,
    onRefused: (refusal) => {
      metrics.authFailures.inc({ reason: refusal.reason });
      noteRefusal(refusal);
    },
    onNarrowWindow: () =>
      logger.warn("this release of grpc-js keeps its default window: uploads of gradients are slower"),
    onAnswered: (method, code, seconds) =>
      metrics.rpcHandling.observe({ method: method.slice(1), code: grpcStatus[code] }, seconds),
  };
}

const REFUSALS = {
  missing: "no join token",
  invalid: "wrong join token",
  role: "the join token is of a role that may not call this",
} as const;

const CONNECTION_REFUSALS = {
  address: "its address has as many as one may have (cluster.maxConnectionsPerAddress)",
  total: "all that are allowed are taken (cluster.maxConnections)",
} as const;

function openPages(coordinator: Coordinator, host: string | undefined): Promise<HttpServer> {
  const { config, directory, dispatcher, metrics, bus, runId } = coordinator;
  return startHttpServer({
    registry: metrics.registry,
    host,
    port: config.cluster.httpPort,
    coordinator: {
      runId,
      targets: () =>
        directory
          .list()
          .map(({ metricsAddress, role, workerId }) => ({ address: metricsAddress, role, workerId })),
      status: makeRunStatus({ ...coordinator, intakeBytes: () => dispatcher.intakeBytes }),
      events: bus,
    },
  });
}

/** Where workers elsewhere reach this coordinator. */
function reachableAddress({ cluster: { durable } }: Config, listening: string): string {
  if (durable.type === "nats" && durable.advertise !== null) return durable.advertise;
  return listening.replace(/^(0\.0\.0\.0|\[?::\]?):/, `${hostname()}:`);
}
