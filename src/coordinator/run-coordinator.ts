/** The coordinator process: opens the run directory, listens, runs the stages, leaves results. No tensor code here. */
import { mkdir, rename, writeFile } from "node:fs/promises";
import { hostname } from "node:os";
import { join, resolve } from "node:path";
import { status as grpcStatus } from "@grpc/grpc-js";
import type { Config } from "../config/schema.js";
import { loadRlhfData } from "../data/datasets.js";
import { resolveTokenizerDirectory } from "../data/tokenizer-source.js";
import { TokenizerPool } from "../data/tokenizer-pool.js";
import { createLogger, type Logger } from "../observability/logger.js";
import { createMetrics } from "../observability/metrics.js";
import { startHttpServer } from "../observability/http-server.js";
import { EventBus } from "../observability/progress.js";
import { startRunFiles } from "../observability/run-files.js";
import { BulkServer } from "../reduce/bulk-server.js";
import { JoinTokens, checkListenAddress, isLoopback } from "../rpc/auth.js";
import { makeRefusalLog } from "../rpc/refusal-log.js";
import { startRpcServer, type RpcServerOptions } from "../rpc/server.js";
import { toStopTable } from "../rpc/codec/stop-table.js";
import type { ServerTls } from "../rpc/tls.js";
import { makeDeferred, sleep } from "../shared/abort.js";
import { TroupeError, describeError, errorCodeOf } from "../shared/errors.js";
import { stagesOf } from "../stages/plan-stages.js";
import { runStages } from "../stages/run-stages.js";
import { ArtifactStore } from "./artifact-store.js";
import { makeArtifactService } from "./artifact-service.js";
import { Checkpointer } from "./checkpointer.js";
import { makeControlService } from "./control-service.js";
import { DEFAULT_CORE_CONFIG, makeState, type CoreConfig } from "./core/index.js";
import { CoreHost } from "./core-host.js";
import { Dispatcher } from "./dispatcher.js";
import { ExperienceStore } from "./experience-store.js";
import { LearnerGroup } from "./learner-group.js";
import { listenAgain } from "./listen-again.js";
import { makeMembershipService, type AdmitWorker } from "./membership-service.js";
import { ModelFolders } from "./model-folders.js";
import { RunClock } from "./run-clock.js";
import { makeRunStatus } from "./run-status.js";
import { openDurability } from "./standby-durability.js";
import { WorkerDirectory } from "./worker-directory.js";

/** How long workers get to leave at the end before the server closes on them. */
const DRAIN_MS = 5_000;

export interface CoordinatorOptions {
  readonly config: Config;
  readonly runDir: string;
  readonly host?: string;
  readonly port?: number;
  readonly httpHost?: string;
  readonly httpPort?: number;
  readonly tokenFile?: string | null;
  readonly insecure?: boolean;
  /** "auto" continues the run the directory holds; its journal says where. */
  readonly resume?: "auto";
  /** Wait for the coordinator that leads the run, and go on with it when that one is gone. */
  readonly standby?: boolean;
  /** Which workers' machines are fit for the run. @default all */
  readonly admitWorker?: AdmitWorker;
  readonly signal: AbortSignal;
}

/** Runs until the stages are done, the run is stopped, or it fails. */
export async function runCoordinator(options: CoordinatorOptions): Promise<void> {
  const { config } = options;
  const runDir = resolve(options.runDir);
  const listenHost = options.host ?? config.cluster.host;
  const tokenFile = options.tokenFile ?? config.cluster.tokenFile;
  const tokens = tokenFile === null ? undefined : JoinTokens.read(tokenFile);
  const tls = serverTlsOf(config);
  checkListenAddress(listenHost, {
    hasToken: tokens !== undefined,
    hasTls: tls !== undefined,
    isInsecure: options.insecure ?? config.cluster.insecure,
  });

  const durability = await openDurability({
    config,
    runDir,
    standby: options.standby ?? false,
    mayContinue: options.resume === "auto",
    signal: options.signal,
  });
  if (durability === undefined) return;
  const { log, recovered, files, runId, leadership } = durability;
  await mkdir(join(runDir, "checkpoints"), { recursive: true });
  const logger = createLogger({
    role: "coordinator",
    runId,
    file: join(runDir, "logs", "coordinator.ndjson"),
    secrets: tokens?.secrets ?? [],
  });
  const clock = await RunClock.open({ runDir, logger, files });
  const metrics = createMetrics("coordinator");
  const bus = new EventBus({
    onListenerError: (error) => logger.error({ err: error }, "a progress listener failed"),
  });
  const runFiles = await startRunFiles({ bus, dir: runDir });

  // The run ends when the stages are done, when someone stops it, or when it cannot go on.
  const stopping = new AbortController();
  const stop = (reason: unknown) => stopping.abort(reason);
  const onSignal = () => stop(new TroupeError("CANCELLED", "told to stop"));
  options.signal.addEventListener("abort", onSignal, { once: true });
  if (options.signal.aborted) onSignal();
  let isOver = false;
  /** Another coordinator goes on with the run: the workers are its, and so is what the run directory says. */
  const isHandedOver = () =>
    leadership !== undefined && (options.signal.aborted || errorCodeOf(stopping.signal.reason) === "FENCED");

  const host = new CoreHost(makeState(coreConfig(config), recovered), log, logger, stop, (elapsedMs) =>
    metrics.journalAppendDuration.observe(elapsedMs / 1000),
  );
  logWorkers(bus, logger);
  leadership?.lost.addEventListener("abort", () => {
    stop(leadership.lost.reason);
    // From here on nothing is decided, and nothing more is tried to be written.
    void host.close();
    void log.close();
    files.close();
    void clock.abandon();
  });
  host.on("StopRun", ({ code, diagnosis }) => stop(new TroupeError(code, diagnosis)));
  const directory = new WorkerDirectory(bus);
  const artifacts = new ArtifactStore(join(runDir, "artifacts"), {
    files,
    isKept: (name) => WEIGHTS.test(name),
  });
  await artifacts.clean();
  const store = new ExperienceStore(log);
  const shared = { host, directory, metrics, logger, runId };
  const dispatcher = new Dispatcher({ ...shared, store, promptsPerTask: config.cluster.promptsPerTask });
  const isEncrypted = tls !== undefined;
  const bulk = hasBulkChannel(config, listenHost)
    ? await BulkServer.listen({ host: listenHost, port: config.cluster.bulkPort, isEncrypted })
    : undefined;
  const learners = new LearnerGroup({ ...shared, artifacts, cluster: config.cluster, bulk, isEncrypted });
  learners.onFatal = stop;

  const noteRefusal = makeRefusalLog(({ method, reason, peer }, suppressed) =>
    logger.warn({ method, peer, suppressed }, `call refused: ${REFUSALS[reason]}`),
  );
  const services = {
    membership: makeMembershipService({
      ...shared,
      config,
      isOver: () => isOver,
      admitWorker: options.admitWorker,
    }),
    rollout: dispatcher.service,
    learner: learners.service,
    artifact: makeArtifactService({
      store: artifacts,
      host,
      runId,
      maxBytes: config.cluster.maxArtifactBytes,
    }),
    control: makeControlService({
      host,
      directory,
      bus,
      runId,
      clock,
      stop: (reason) => stop(new TroupeError("CANCELLED", reason)),
    }),
  };
  const serving: RpcServerOptions = {
    host: listenHost,
    port: options.port ?? config.cluster.port,
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
  // A first start says at once that a port is taken.
  const patienceMs = options.resume === "auto" ? undefined : 0;
  const server = await listenAgain(() => startRpcServer(services, serving), stopping.signal, patienceMs);
  const openPages = (port: number) =>
    startHttpServer({
      registry: metrics.registry,
      host: options.httpHost,
      port,
      coordinator: {
        runId,
        targets: () =>
          directory
            .list()
            .map(({ metricsAddress, role, workerId }) => ({ address: metricsAddress, role, workerId })),
        status: makeRunStatus({
          host,
          directory,
          bus,
          config,
          runId,
          clock,
          metrics,
          intakeBytes: () => dispatcher.intakeBytes,
        }),
        events: bus,
      },
    });
  const httpPort = options.httpPort ?? config.cluster.httpPort;
  const http = await listenAgain(() => openPages(httpPort), stopping.signal, patienceMs);
  host.dispatch({ type: "CoordinatorStarted" });
  await host.settled();
  leadership?.announce(reachableAddress(config, server.address), http.url);
  await announce(runDir, {
    pid: process.pid,
    grpcAddress: server.address,
    httpAddress: http.url,
    runId,
    startedAt: new Date().toISOString(),
  });
  logger.info({ grpc: server.address, dashboard: http.url }, "coordinator listens");
  bus.publish({ type: "run-started", runId, name: config.name, stages: config.stages });

  let tokenizer: TokenizerPool | undefined;
  let endedBy: unknown;
  try {
    tokenizer = await TokenizerPool.open(
      await resolveTokenizerDirectory(config.model, config.data, join(runDir, "tokenizer")),
    );
    const data = await loadRlhfData(config.data, config.seed, phasesOf(config), tokenizer, {
      lossOn: config.sft.lossOn,
      signal: stopping.signal,
    });
    logger.info(data.report.summary);
    bus.publish({ type: "message", level: "info", text: data.report.summary });
    const models = new ModelFolders(join(runDir, "models"), config, artifacts, tokenizer.info, files);
    const checkpointer = new Checkpointer({
      runDir,
      runId,
      keepLast: config.checkpoint.keepLast,
      keepEvery: config.checkpoint.keepEvery,
      host,
      learners,
      artifacts,
      models,
      files,
      bus,
      metrics,
      logger,
      signal: stopping.signal,
    });
    await checkpointer.clean();
    const { info } = tokenizer;
    const { stopStrings } = config.generation;
    const stops = stopStrings.length === 0 ? null : toStopTable(await tokenizer.stopTable(stopStrings));
    const stages = runStages(
      {
        config,
        runDir,
        data,
        tokenizer,
        host,
        learners,
        dispatcher,
        directory,
        store,
        artifacts,
        models,
        checkpointer,
        bus,
        metrics,
        logger,
        tokens: { vocabularySize: info.vocabSize, eosIds: [info.eosId], padId: info.padId },
        stops,
        signal: stopping.signal,
      },
      clock,
    );
    metrics.runActive.set(1);
    await Promise.race([stages, whenAborted(stopping.signal)]);
    bus.publish({ type: "run-finished", outcome: "succeeded", elapsedMs: clock.seconds * 1000 });
    logger.info({ seconds: clock.seconds }, "run finished");
  } catch (thrown) {
    // A stage that failed because the run was stopped reports why it was stopped.
    const error: unknown = stopping.signal.aborted ? stopping.signal.reason : thrown;
    const isCancelled = errorCodeOf(error) === "CANCELLED";
    if (!isCancelled) logger.error({ err: error }, "run failed");
    endedBy = error;
    if (!isHandedOver())
      bus.publish({
        type: "run-finished",
        outcome: isCancelled ? "cancelled" : "failed",
        elapsedMs: clock.seconds * 1000,
        error: describeError(error),
      });
    stop(error);
    throw error;
  } finally {
    isOver = !isHandedOver();
    metrics.runActive.set(0);
    options.signal.removeEventListener("abort", onSignal);
    // A core that stopped the run releases nobody any more: then the closing server is what workers notice.
    await whenEmpty(directory, isOver && host.state.volatile.stopped === null ? DRAIN_MS : 0);
    await server.close(isOver ? 1_000 : 0);
    bulk?.close();
    await http.close();
    await tokenizer?.close();
    await host.close();
    await log.close();
    if (leadership?.lost.aborted !== true) await clock.close();
    files.close();
    await leadership?.resign(endedBy);
    await runFiles.close();
    await logger.close();
  }
}

/** What rollout workers sample with: a coordinator that takes over must have it. */
const WEIGHTS = /^(actor|critic)\/\d+$/;

const REFUSALS = {
  missing: "no join token",
  invalid: "wrong join token",
  role: "the join token is of a role that may not call this",
} as const;

function serverTlsOf({ cluster: { tls } }: Config): ServerTls | undefined {
  return tls.cert === null || tls.key === null
    ? undefined
    : { cert: tls.cert, key: tls.key, clientCa: tls.clientCa };
}

function coreConfig({ cluster, ppo, checkpoint }: Config): CoreConfig {
  const experiencesPerIteration = ppo.rolloutBatchSize * ppo.samplesPerPrompt * ppo.generationBatches;
  return {
    ...DEFAULT_CORE_CONFIG,
    leaseTtlMs: cluster.leaseTtlMs,
    taskTimeoutMs: cluster.taskTimeoutMs,
    stepTimeoutMs: cluster.stepTimeoutMs,
    round: cluster.sync === "parameters" ? { timeoutMs: cluster.stepTimeoutMs * cluster.syncEvery } : null,
    maxTaskAttempts: cluster.maxTaskAttempts,
    hedgeFactor: cluster.hedgeFactor,
    minLearners: cluster.minLearners,
    maxStalenessVersions: ppo.staleness,
    capacityExperiences: (ppo.staleness + 1) * experiencesPerIteration,
    keptCheckpoints: checkpoint.keepLast,
  };
}

function hasBulkChannel({ cluster: { bulkChannel, bulkPort } }: Config, listenHost: string): boolean {
  if (bulkChannel !== "auto") return bulkChannel === "on";
  // Elsewhere a port that nobody opened in a firewall would stop the run.
  return isLoopback(listenHost) || bulkPort !== 0;
}

/** The phases whose rows are needed: the ptx mix of ppo draws from the sft rows. */
function phasesOf(config: Config): Config["stages"] {
  const stages = stagesOf(config);
  const needsSftRows = stages.includes("ppo") && config.ppo.ptx !== null && !stages.includes("sft");
  return needsSftRows ? [...stages, "sft"] : stages;
}

/** Where workers elsewhere reach this coordinator. */
function reachableAddress({ cluster: { durable } }: Config, listening: string): string {
  if (durable.type === "nats" && durable.advertise !== null) return durable.advertise;
  return listening.replace(/^(0\.0\.0\.0|\[?::\]?):/, `${hostname()}:`);
}

async function announce(runDir: string, facts: object): Promise<void> {
  const path = join(runDir, "coordinator.json");
  await writeFile(`${path}.tmp`, JSON.stringify(facts, null, 2) + "\n");
  await rename(`${path}.tmp`, path);
}

function whenAborted(signal: AbortSignal): Promise<never> {
  const aborted = makeDeferred<never>();
  const reject = () => aborted.reject(signal.reason);
  if (signal.aborted) reject();
  else signal.addEventListener("abort", reject, { once: true });
  return aborted.promise;
}

/** Who came and went, also in the coordinator's own log. */
function logWorkers(bus: EventBus, logger: Logger): void {
  bus.subscribe((event) => {
    switch (event.type) {
      case "worker-joined":
        return logger.info({ worker_id: event.workerId, role: event.role, pid: event.pid }, "worker joined");
      case "worker-restarted":
        return logger.info(
          { worker_id: event.workerId, role: event.role, pid: event.pid, restarts: event.restarts },
          "worker came back",
        );
      case "worker-lost":
        return logger.warn(
          { worker_id: event.workerId, role: event.role, reason: event.reason },
          "worker lost, its work goes to others",
        );
      default:
        return;
    }
  });
}

/** Workers hear with their next heartbeat that the run is over, and leave. */
async function whenEmpty(directory: WorkerDirectory, patienceMs: number): Promise<void> {
  const deadlineMs = performance.now() + patienceMs;
  while (directory.list().length > 0 && performance.now() < deadlineMs) await sleep(50);
}
