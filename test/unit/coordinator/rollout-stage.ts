/** A core with its shell and a log that can be held up, in the ppo stage; and rollout workers as bare streams. */
import { Duplex } from "node:stream";
import { CoreHost } from "../../../src/coordinator/core-host.js";
import { DEFAULT_CORE_CONFIG, makeState, type AcceptWorker } from "../../../src/coordinator/core/index.js";
import { Dispatcher } from "../../../src/coordinator/dispatcher.js";
import { ExperienceStore } from "../../../src/coordinator/experience-store.js";
import { MemoryLog, type LogEntry } from "../../../src/coordinator/journal/index.js";
import { WorkerDirectory } from "../../../src/coordinator/worker-directory.js";
import { createLogger } from "../../../src/observability/logger.js";
import { createMetrics } from "../../../src/observability/metrics.js";
import { EventBus } from "../../../src/observability/progress.js";
import type { Prompt, ScoredRollout } from "../../../src/rl/types.js";
import { encodeExperience } from "../../../src/rpc/codec/experience-bytes.js";
import type { RolloutDirective } from "../../../src/rpc/generated/troupe/v1/RolloutDirective.js";
import type { RolloutMessage } from "../../../src/rpc/generated/troupe/v1/RolloutMessage.js";
import { makeDeferred, type Deferred } from "../../../src/shared/abort.js";

export const RUN_ID = "run-1";

/** Appends wait while it is held, as on a disk that does not answer. */
export class HeldLog extends MemoryLog {
  private held: Deferred<void> | undefined;

  hold(): void {
    this.held ??= makeDeferred<void>();
  }

  release(): void {
    this.held?.resolve();
    this.held = undefined;
  }

  override async append(entries: readonly LogEntry[]): Promise<void> {
    await this.held?.promise;
    await super.append(entries);
  }
}

/** The coordinator's end of a rollout stream: what is written to it is kept, what `say` is given arrives. */
export class WorkerStream extends Duplex {
  readonly cancelled = false;
  readonly received: RolloutDirective[] = [];
  /** A peer that does not read: writes are never finished. */
  isDeaf = false;

  constructor(private readonly sender: object) {
    super({ objectMode: true, highWaterMark: 16 });
  }

  say(message: RolloutMessage): void {
    this.push({ sender: this.sender, ...message });
  }

  get tasks() {
    return this.received.flatMap(({ task }) => (task ? [task] : []));
  }

  get acks() {
    return this.received
      .flatMap(({ acks }) => acks?.acks ?? [])
      .flatMap(({ experienceIds, outcome }) =>
        experienceIds!.map((experienceId) => ({ experienceId, outcome })),
      );
  }

  override _read(): void {}

  override _write(directive: RolloutDirective, _encoding: string, done: () => void): void {
    this.received.push(directive);
    if (!this.isDeaf) done();
  }
}

export const settle = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 5));

/** @param options.log of a coordinator that is gone: this one goes on from it */
export async function openStage({ capacity = 64, promptsPerTask = 2, log = new HeldLog() } = {}) {
  const logger = createLogger({ role: "coordinator", level: "silent" });
  const metrics = createMetrics("coordinator", { processMetrics: false });
  const failures: unknown[] = [];
  const core = { ...DEFAULT_CORE_CONFIG, capacityExperiences: capacity };
  const host = new CoreHost(makeState(core, await log.recover()), log, logger, (error) =>
    failures.push(error),
  );
  const bus = new EventBus();
  const directory = new WorkerDirectory(bus);
  const store = new ExperienceStore(log);
  const dropped: string[] = [];
  const dispatcher = new Dispatcher({
    dropped: {
      note: ({ experienceId, promptIds }, reason, failure) =>
        dropped.push(
          `${experienceId} [${promptIds}] ${reason}${failure === undefined ? "" : `: ${failure}`}`,
        ),
    },
    host,
    store,
    directory,
    metrics,
    logger,
    runId: RUN_ID,
    promptsPerTask,
  });
  const accepted = new Map<string, AcceptWorker>();
  host.on("AcceptWorker", (effect) => accepted.set(effect.workerId, effect));
  host.dispatch({ type: "CoordinatorStarted" });
  host.dispatch({ type: "StageStarted", stage: "ppo" });
  host.dispatch({ type: "VersionPublished", policyVersion: 0, sha256: "" });
  await host.settled();
  return {
    host,
    log,
    bus,
    store,
    directory,
    dispatcher,
    metrics,
    failures,
    /** What would be in dropped.jsonl. */
    dropped,
    async join(workerId: string, credits = 2): Promise<WorkerStream> {
      host.dispatch({
        type: "WorkerRegistered",
        workerId,
        role: "rollout",
        requestId: workerId,
        position: null,
        policyVersion: -1,
      });
      await host.settled();
      const { epoch, incarnation } = accepted.get(workerId)!;
      const stream = new WorkerStream({ runId: RUN_ID, epoch, workerId, incarnation });
      dispatcher.service.Perform(stream as never);
      stream.say({ ready: { credits } });
      await settle();
      return stream;
    },
    close: () => host.close(),
  };
}

export const BRIEF = {
  models: () => [],
  tokenizer: { vocabularySize: 16, eosIds: [1], padId: 0 },
  sampling: { seed: 1 },
  score: true,
  vocabularySize: 16,
};

export const promptsOf = (iteration: number | "eval", count: number): Prompt[] =>
  Array.from({ length: count }, (_, promptIndex) => ({
    promptIndex,
    sampleIndex: 0,
    experienceId: `${iteration}/${promptIndex}/0`,
    promptIds: Int32Array.of(1, 2),
  }));

export const answerTo = (prompt: Prompt, tokens = 2): ScoredRollout => ({
  ...prompt,
  policyVersion: 0,
  responseIds: new Int32Array(tokens).fill(3),
  logprobs: new Float32Array(tokens).fill(-1),
  refLogprobs: new Float32Array(tokens).fill(-1),
  values: new Float32Array(tokens),
  score: prompt.promptIndex,
  finishReason: "eos",
});

export const bytesOf = (taskId: string, prompt: Prompt, tokens = 2, attempt = 1): Buffer =>
  encodeExperience(taskId, attempt, answerTo(prompt, tokens));
