/** What every stage works with: opened once per run, from a coordinator that listens and the run's tokenizer. */
import { join } from "node:path";
import type { Config } from "../config/schema.js";
import type { ArtifactStore } from "../coordinator/artifact-store.js";
import { Checkpointer } from "../coordinator/checkpointer.js";
import type { Coordinator } from "../coordinator/coordinator.js";
import type { CoreHost } from "../coordinator/core-host.js";
import type { Dispatcher } from "../coordinator/dispatcher.js";
import type { ExperienceStore } from "../coordinator/experience-store.js";
import type { LearnerGroup } from "../coordinator/learner-group.js";
import { ModelFolders } from "../coordinator/model-folders.js";
import { RunResults } from "../coordinator/run-results.js";
import type { WorkerDirectory } from "../coordinator/worker-directory.js";
import { loadRlhfData, type RlhfData } from "../data/datasets.js";
import type { TokenizerPool } from "../data/tokenizer-pool.js";
import type { TextTokenizer } from "../data/types.js";
import {
  generationConfig,
  noGenerationDefaults,
  readGenerationDefaults,
  type GenerationDefaults,
} from "../models/generation-defaults.js";
import type { Logger } from "../observability/logger.js";
import type { Metrics } from "../observability/metrics.js";
import type { EventBus } from "../observability/progress.js";
import { toStopTable } from "../rpc/codec/stop-table.js";
import type { StopTable as StopTableMessage } from "../rpc/generated/troupe/v1/StopTable.js";
import type { TokenizerInfo as TokenizerMessage } from "../rpc/generated/troupe/v1/TokenizerInfo.js";
import { cannotBeUsed } from "./admit-model.js";
import { phasesOf } from "./plan-stages.js";

export interface RunContext {
  readonly config: Config;
  readonly runDir: string;
  readonly data: RlhfData;
  readonly tokenizer: TextTokenizer;
  /** The tokenizer facts workers need. */
  readonly tokens: TokenizerMessage;
  /** Stop strings as rollout workers need them; null when none are configured. */
  readonly stops: StopTableMessage | null;
  readonly host: CoreHost;
  readonly learners: LearnerGroup;
  readonly dispatcher: Dispatcher;
  readonly directory: WorkerDirectory;
  readonly store: ExperienceStore;
  readonly artifacts: ArtifactStore;
  readonly models: ModelFolders;
  readonly checkpointer: Checkpointer;
  readonly results: RunResults;
  readonly bus: EventBus;
  readonly metrics: Metrics<"coordinator">;
  readonly logger: Logger;
  /** Aborts when the run is told to stop. */
  readonly signal: AbortSignal;
}

/** Reads the data and finds what earlier coordinators of the run left. @throws {TroupeError} CONFIG, DATA, STORAGE */
export async function openRunContext(
  coordinator: Coordinator,
  tokenizer: TokenizerPool,
): Promise<RunContext> {
  const { config, runDir, runId, end, host, directory, artifacts, store } = coordinator;
  const { dispatcher, learners, files, bus, metrics, logger } = coordinator;
  const { signal } = end;
  const data = await loadRlhfData(config.data, config.seed, phasesOf(config), tokenizer, {
    lossOn: config.sft.lossOn,
    signal,
  });
  logger.info(data.report.summary);
  bus.publish({ type: "message", level: "info", text: data.report.summary });
  const { vocabSize, eosId, bosId, padId } = tokenizer.info;
  const defaults = await generationDefaults(config, eosId);
  const generation = generationConfig(defaults, { bosId: bosId ?? eosId, padId });
  const models = new ModelFolders(
    join(runDir, "models"),
    config,
    artifacts,
    tokenizer.info,
    generation,
    files,
  );
  const { keepLast, keepEvery } = config.checkpoint;
  const checkpointer = new Checkpointer({
    ...{ runDir, runId, keepLast, keepEvery, host, learners, artifacts, models, files },
    ...{ bus, metrics, logger, signal },
  });
  await checkpointer.clean();
  const { stopStrings } = config.generation;
  return {
    ...{ config, runDir, data, tokenizer, host, learners, dispatcher, directory, store, artifacts },
    results: new RunResults(runDir, files),
    ...{ models, checkpointer, bus, metrics, logger, signal },
    tokens: { vocabularySize: vocabSize, eosIds: [...defaults.eosIds], padId },
    stops: stopStrings.length === 0 ? null : toStopTable(await tokenizer.stopTable(stopStrings)),
  };
}

/** An answer ends with the tokenizer's end token, and with those that the model the run starts from has besides. */
async function generationDefaults({ model }: Config, eosId: number): Promise<GenerationDefaults> {
  if (model.path === null) return noGenerationDefaults([eosId]);
  return readGenerationDefaults(model.path, [eosId]).catch((error: unknown) => {
    throw cannotBeUsed("model.path", model.path!, error);
  });
}
