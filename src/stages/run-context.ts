/** What every stage works with. Built once per run by src/coordinator/run-coordinator.ts. */
import type { Config } from "../config/schema.js";
import type { ArtifactStore } from "../coordinator/artifact-store.js";
import type { Checkpointer } from "../coordinator/checkpointer.js";
import type { CoreHost } from "../coordinator/core-host.js";
import type { Dispatcher } from "../coordinator/dispatcher.js";
import type { ExperienceStore } from "../coordinator/experience-store.js";
import type { LearnerGroup } from "../coordinator/learner-group.js";
import type { ModelFolders } from "../coordinator/model-folders.js";
import type { WorkerDirectory } from "../coordinator/worker-directory.js";
import type { RlhfData } from "../data/datasets.js";
import type { TextTokenizer } from "../data/types.js";
import type { Logger } from "../observability/logger.js";
import type { Metrics } from "../observability/metrics.js";
import type { EventBus } from "../observability/progress.js";
import type { StopTable as StopTableMessage } from "../rpc/generated/troupe/v1/StopTable.js";
import type { TokenizerInfo as TokenizerMessage } from "../rpc/generated/troupe/v1/TokenizerInfo.js";

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
  readonly bus: EventBus;
  readonly metrics: Metrics<"coordinator">;
  readonly logger: Logger;
  /** Aborts when the run is told to stop. */
  readonly signal: AbortSignal;
}
