/**
 * A coordinator without stages: the real journal, ledger, services and tokens, and a loop that collects experiences
 * and lets them go. What one experience costs on its way from a worker to the disk and back into memory, and nothing
 * else.
 */
import { join } from "node:path";
import { configSchema } from "../config/schema.js";
import { makeArtifactService } from "../coordinator/artifact-service.js";
import { ArtifactStore } from "../coordinator/artifact-store.js";
import { makeControlService } from "../coordinator/control-service.js";
import { DEFAULT_CORE_CONFIG, makeState } from "../coordinator/core/index.js";
import { CoreHost } from "../coordinator/core-host.js";
import { Dispatcher, type PerformanceBrief } from "../coordinator/dispatcher.js";
import { ExperienceStore } from "../coordinator/experience-store.js";
import { openLevelLog } from "../coordinator/journal/index.js";
import { ledgerOf } from "../coordinator/ledger-view.js";
import { LearnerGroup } from "../coordinator/learner-group.js";
import { makeMembershipService } from "../coordinator/membership-service.js";
import { WorkerDirectory } from "../coordinator/worker-directory.js";
import { createLogger } from "../observability/logger.js";
import type { Ledger } from "../observability/run-status.js";
import { createMetrics } from "../observability/metrics.js";
import { EventBus } from "../observability/progress.js";
import type { Prompt } from "../rl/types.js";
import { JoinTokens } from "../rpc/auth.js";
import { startRpcServer } from "../rpc/server.js";
import { sleep } from "../shared/abort.js";
import { TroupeError } from "../shared/errors.js";

const RUN_ID = "collecting";

export interface CollectingOptions {
  readonly folder: string;
  readonly tokenFile: string;
  /** Experiences of one collection. */
  readonly collection: number;
  readonly promptsPerTask: number;
  readonly promptTokens: number;
}

export interface CollectingCoordinator {
  /** host:port */
  readonly address: string;
  /** Rollout workers that may be given work. */
  readyWorkers(): number;
  /** Experiences that have arrived and are not decided on, and those that wait to be collected, bytes. */
  heldBytes(): { readonly intake: number; readonly buffer: number };
  ledger(): Ledger;
  /** Refused: not asked for, or come twice. */
  refused(): number;
  /** Collects once and forgets it. @returns the experiences that came: all of them, each durable */
  collect(): Promise<number>;
  close(): Promise<void>;
}

const BRIEF: PerformanceBrief = {
  models: () => [],
  tokenizer: { vocabularySize: 16, eosIds: [1], padId: 0 },
  sampling: { seed: 1, temperature: 1, topP: 1, maxNewTokens: 1 << 20, repetitionPenalty: 1 },
  score: true,
  vocabularySize: 16,
};

/** @throws {TroupeError} STORAGE or CONFIG like a coordinator */
export async function startCollecting(options: CollectingOptions): Promise<CollectingCoordinator> {
  const config = configSchema.parse({ data: { path: "none" }, cluster: { leaseTtlMs: 60_000 } });
  const log = await openLevelLog(join(options.folder, "journal"));
  const logger = createLogger({ role: "coordinator", level: "warn" });
  const metrics = createMetrics("coordinator", { processMetrics: false });
  const bus = new EventBus();
  /** Ends whatever is being collected. */
  const failing = new AbortController();
  const core = { ...DEFAULT_CORE_CONFIG, leaseTtlMs: 60_000, capacityExperiences: options.collection };
  const host = new CoreHost(makeState(core, await log.recover()), log, logger, (error) =>
    failing.abort(error),
  );
  host.on("StopRun", ({ code, diagnosis }) => failing.abort(new TroupeError(code, diagnosis)));
  const directory = new WorkerDirectory(bus);
  const artifacts = new ArtifactStore(join(options.folder, "artifacts"));
  const store = new ExperienceStore(log);
  const shared = { host, directory, metrics, logger, runId: RUN_ID };
  const dispatcher = new Dispatcher({ ...shared, store, promptsPerTask: options.promptsPerTask });
  const learners = new LearnerGroup({ ...shared, artifacts, cluster: config.cluster });
  const server = await startRpcServer(
    {
      membership: makeMembershipService({ ...shared, config, isOver: () => false }),
      rollout: dispatcher.service,
      learner: learners.service,
      artifact: makeArtifactService({ store: artifacts, host, runId: RUN_ID, maxBytes: 1 << 20 }),
      control: makeControlService({
        host,
        directory,
        bus,
        runId: RUN_ID,
        clock: { seconds: 0 },
        stop: () => undefined,
      }),
    },
    {
      host: "127.0.0.1",
      port: 0,
      tokens: JoinTokens.read(options.tokenFile),
      onRefused: ({ method, reason }) => logger.warn({ method, reason }, "refused"),
    },
  );
  host.dispatch({ type: "CoordinatorStarted" });
  host.dispatch({ type: "StageStarted", stage: "ppo" });
  host.dispatch({ type: "VersionPublished", policyVersion: 0, sha256: "" });
  await host.settled();

  const promptIds = new Int32Array(options.promptTokens).fill(5);
  let iteration = 0;
  return {
    address: server.address,
    readyWorkers: () => [...host.state.volatile.members.values()].filter(({ credits }) => credits > 0).length,
    heldBytes: () => ({
      intake: dispatcher.intakeBytes,
      buffer: host.state.durable.counts.bufferedBytes,
    }),
    ledger: () => ledgerOf(host.state.durable.counts),
    refused() {
      const { counters } = host.state.volatile;
      return counters.duplicateExperiences + counters.staleExperiences + counters.rejectedExperiences;
    },
    async collect() {
      const prompts = Array.from({ length: options.collection }, (_, promptIndex): Prompt => ({
        promptIndex,
        sampleIndex: 0,
        experienceId: `${iteration}/${promptIndex}/0`,
        promptIds,
      }));
      host.dispatch({ type: "IterationStarted", iteration, promptCursor: 0 });
      const collected = await dispatcher.collect(iteration, prompts, 0, BRIEF, failing.signal);
      store.releaseUpTo(iteration);
      host.dispatch({ type: "IterationCommitted", iteration, promptCursor: 0, resume: null });
      iteration += 1;
      return collected.length;
    },
    async close() {
      await server.close(0);
      await host.close();
      await log.close();
      await sleep(0);
      await logger.close();
    },
  };
}
