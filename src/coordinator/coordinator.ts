/**
 * What directs a run, wired together: the decision core with its journal, the stores, the workers' services. Nobody can
 * reach it before ./endpoints listens.
 */
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import type { Config } from "../config/schema.js";
import { createLogger, type Logger } from "../observability/logger.js";
import { createMetrics, type Metrics } from "../observability/metrics.js";
import { EventBus } from "../observability/progress.js";
import { startRunFiles } from "../observability/run-files.js";
import { BulkServer } from "../reduce/bulk-server.js";
import type { JoinTokens } from "../rpc/auth.js";
import type { ServerTls } from "../rpc/tls.js";
import { TroupeError } from "../shared/errors.js";
import { isLoopback } from "../shared/loopback.js";
import { ArtifactStore } from "./artifact-store.js";
import { coreConfigOf } from "./core-config.js";
import { makeState } from "./core/index.js";
import { CoreHost } from "./core-host.js";
import { Dispatcher } from "./dispatcher.js";
import { DroppedPrompts } from "./dropped-prompts.js";
import { ExperienceStore } from "./experience-store.js";
import { LearnerGroup } from "./learner-group.js";
import { RunClock } from "./run-clock.js";
import { RunEnd } from "./run-end.js";
import type { Durability } from "./standby-durability.js";
import { WorkerDirectory } from "./worker-directory.js";
import { logWorkers } from "./worker-log.js";

/** What rollout workers sample with: a coordinator that takes over must have it. */
const WEIGHTS = /^(actor|critic)\/\d+$/;

export interface CoordinatorSettings {
  readonly config: Config;
  readonly runDir: string;
  readonly durability: Durability;
  readonly tokens: JoinTokens | undefined;
  readonly tls: ServerTls | undefined;
  /** Aborts when this process is told to end. */
  readonly signal: AbortSignal;
}

export interface Coordinator extends Pick<Durability, "runId" | "files" | "leadership"> {
  readonly config: Config;
  readonly runDir: string;
  readonly end: RunEnd;
  readonly host: CoreHost;
  readonly directory: WorkerDirectory;
  readonly artifacts: ArtifactStore;
  readonly store: ExperienceStore;
  readonly dispatcher: Dispatcher;
  readonly learners: LearnerGroup;
  readonly clock: RunClock;
  readonly bus: EventBus;
  readonly metrics: Metrics<"coordinator">;
  readonly logger: Logger;
  /** Once the endpoints are closed: nothing is decided or written from here on. @param reason what ended the run */
  close(reason: unknown): Promise<void>;
}

export async function openCoordinator(settings: CoordinatorSettings): Promise<Coordinator> {
  const { config, runDir, durability, tokens, tls } = settings;
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
  logWorkers(bus, logger);

  const end = new RunEnd(settings.signal, leadership);
  const stop = (reason: unknown) => end.stop(reason);
  const host = new CoreHost(makeState(coreConfigOf(config), recovered), log, logger, stop, (elapsedMs) =>
    metrics.journalAppendDuration.observe(elapsedMs / 1000),
  );
  host.on("StopRun", ({ code, diagnosis }) => stop(new TroupeError(code, diagnosis)));
  leadership?.lost.addEventListener("abort", () => {
    stop(leadership.lost.reason);
    // From here on nothing is decided, and nothing more is tried to be written.
    void host.close();
    void log.close();
    files.close();
    void clock.abandon();
  });

  const directory = new WorkerDirectory(bus);
  const artifacts = new ArtifactStore(join(runDir, "artifacts"), {
    files,
    isKept: (name) => WEIGHTS.test(name),
  });
  await artifacts.clean();
  const store = new ExperienceStore(log);
  const shared = { host, directory, metrics, logger, runId };
  const dropped = await DroppedPrompts.open(runDir);
  const { promptsPerTask } = config.cluster;
  const dispatcher = new Dispatcher({ ...shared, store, promptsPerTask, dropped });
  const isEncrypted = tls !== undefined;
  const bulk = hasBulkChannel(config)
    ? await BulkServer.listen({ host: config.cluster.host, port: config.cluster.bulkPort, isEncrypted })
    : undefined;
  const learners = new LearnerGroup({ ...shared, artifacts, cluster: config.cluster, bulk, isEncrypted });
  learners.onFatal = stop;

  const close = async (reason: unknown) => {
    bulk?.close();
    await host.close();
    await log.close();
    if (leadership?.lost.aborted !== true) await clock.close();
    files.close();
    await leadership?.resign(end.outcome(reason));
    await runFiles.close();
    await dropped.close();
    await logger.close();
  };
  return {
    ...shared,
    config,
    runDir,
    files,
    leadership,
    end,
    artifacts,
    store,
    dispatcher,
    learners,
    clock,
    bus,
    close,
  };
}

function hasBulkChannel({ cluster: { bulkChannel, bulkPort, host } }: Config): boolean {
  if (bulkChannel !== "auto") return bulkChannel === "on";
  // Elsewhere a port that nobody opened in a firewall would stop the run.
  return isLoopback(host) || bulkPort !== 0;
}
