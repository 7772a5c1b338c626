/**
 * One registration of a rollout worker: tasks come down the stream, experiences go up.
 *
 *   task ─► load the weights it names ─► generate ─► score ─► batches of experiences ─► done
 *
 * Two tasks are held at a time, so that the next one is here when this one ends. A task is worked on whole; its
 * experiences leave in batches and each is acknowledged when it is durable. What a broken stream lost is sampled
 * again by whoever gets the task next: the same tokens, since they depend on nothing but seed, id and weights.
 */
import type { ClientDuplexStream } from "@grpc/grpc-js";
import { encodeExperience } from "../rpc/codec/experience-bytes.js";
import { fromPromptRow } from "../rpc/codec/prompt-row.js";
import { fromStopTable } from "../rpc/codec/stop-table.js";
import type { RolloutDirective__Output } from "../rpc/generated/troupe/v1/RolloutDirective.js";
import type { RolloutMessage } from "../rpc/generated/troupe/v1/RolloutMessage.js";
import type { RolloutTask__Output } from "../rpc/generated/troupe/v1/RolloutTask.js";
import { AsyncQueue } from "../shared/async-queue.js";
import { describeError, errorCodeOf, protocolError } from "../shared/errors.js";
import { whenDrained } from "../shared/when-drained.js";
import { ArtifactClient } from "../worker/artifact-client.js";
import type { ComputePool } from "../worker/compute-pool.js";
import type { Session } from "../worker/coordinator-link.js";
import type { WorkerContext } from "../worker/start-worker.js";
import { engineSettings } from "../worker/engine-settings.js";
import { ExperienceUplink } from "./experience-uplink.js";
import { ModelLoader, baseName } from "./model-loader.js";
import type * as rolloutThread from "./rollout-thread.js";
import type { Role } from "./rollout-compute.js";
import type { Head } from "../models/model-spec.js";

/** Tasks held at once: one in work, one waiting. */
const CREDITS = 2;

/** Lives as long as the process, over reconnects. */
export interface RolloutState {
  readonly compute: ComputePool<typeof rolloutThread>;
  /** sha256 of the parameters loaded, by model role. */
  readonly loaded: Map<string, string>;
  /** Model shapes the thread was configured for. */
  configuredFor: string;
  policyVersion: number | undefined;
}

export class RolloutSession {
  private readonly artifacts: ArtifactClient;
  private readonly models: ModelLoader;
  private readonly call: ClientDuplexStream<RolloutMessage, RolloutDirective__Output>;
  private readonly tasks = new AsyncQueue<RolloutTask__Output>();
  private readonly uplink = new ExperienceUplink((experiences) =>
    this.send({ experiences: { experiences } }),
  );
  /** Attempts held here that were not cancelled. */
  private readonly wanted = new Set<string>();

  constructor(
    private readonly state: RolloutState,
    private readonly session: Session,
    private readonly context: WorkerContext<"rollout">,
  ) {
    this.artifacts = new ArtifactClient(session.clients, session.sender);
    this.models = new ModelLoader(state, this.artifacts, (seconds) =>
      context.metrics.weightTransferDuration.observe(seconds),
    );
    this.call = session.clients.rollout.perform() as ClientDuplexStream<
      RolloutMessage,
      RolloutDirective__Output
    >;
  }

  async run(): Promise<void> {
    const { call, session, tasks } = this;
    // The loop below reports errors; one that comes after it ended (the cancel in `finally`) is old news.
    call.on("error", () => undefined);
    const askToLeave = () => void this.send({ draining: {} });
    const cancel = () => call.cancel();
    session.draining.addEventListener("abort", askToLeave, { once: true });
    session.signal.addEventListener("abort", cancel, { once: true });
    const worker = this.work();
    try {
      await this.send({ ready: { credits: CREDITS } });
      if (session.draining.aborted) askToLeave();
      for await (const directive of call) {
        const { task, acks, cancel } = directive as RolloutDirective__Output;
        if (task) {
          this.wanted.add(attemptOf(task));
          tasks.push(task);
        }
        for (const { experienceIds } of acks?.acks ?? []) this.uplink.acknowledge(experienceIds);
        if (cancel) this.wanted.delete(attemptOf(cancel));
      }
    } finally {
      tasks.close();
      session.draining.removeEventListener("abort", askToLeave);
      session.signal.removeEventListener("abort", cancel);
      call.cancel();
      this.uplink.close();
      await worker;
      await this.artifacts.close();
    }
  }

  private async work(): Promise<void> {
    for await (const task of this.tasks) {
      if (this.session.signal.aborted || this.call.destroyed) continue;
      if (!this.wanted.has(attemptOf(task))) continue;
      try {
        await this.perform(task);
      } catch (error) {
        this.context.logger.error({ err: error, task_id: task.taskId }, "task failed");
        await this.send({
          failed: {
            taskId: task.taskId,
            attempt: task.attempt,
            errorCode: errorCodeOf(error),
            message: describeError(error),
          },
        });
      }
      this.wanted.delete(attemptOf(task));
      this.session.noteProgress();
    }
  }

  private async perform(task: RolloutTask__Output): Promise<void> {
    const { compute } = this.state;
    const { metrics } = this.context;
    await this.load(task);
    const { sampling } = task;
    if (sampling === null) throw protocolError(`task ${task.taskId}: sampling is not set`);
    const { rollouts, generateMs, scoreMs } = await compute.run("perform", {
      prompts: task.prompts.map(fromPromptRow),
      policyVersion: task.policyVersion,
      sampling,
      stops: task.stops === null ? null : fromStopTable(task.stops),
      needs: { score: task.score },
    });
    for (const rollout of rollouts) {
      if (!this.wanted.has(attemptOf(task))) return;
      metrics.experiencesGenerated.inc();
      metrics.rolloutTokens.inc({ kind: "prompt" }, rollout.promptIds.length);
      metrics.rolloutTokens.inc({ kind: "response" }, rollout.responseIds.length);
      await this.uplink.push(rollout.experienceId, encodeExperience(task.taskId, task.attempt, rollout));
    }
    await this.uplink.flush();
    metrics.rolloutDuration.observe({ phase: "generate" }, generateMs / 1000);
    metrics.rolloutDuration.observe({ phase: "score" }, scoreMs / 1000);
    await this.send({ done: { taskId: task.taskId, attempt: task.attempt, generateMs, scoreMs } });
  }

  /** Brings the replicas to the versions the task names; between tasks, so never in the middle of a sequence. */
  private async load(task: RolloutTask__Output): Promise<void> {
    const { compute, loaded } = this.state;
    const { config } = this.session;
    const { frozenWeights } = config.engine;
    const shapes = JSON.stringify([
      task.tokenizer,
      task.models.map(({ role, hfConfigJson, head, base }) => [role, hfConfigJson, head, base?.sha256]),
    ]);
    if (shapes !== this.state.configuredFor) {
      await compute.run("configure", {
        engine: engineSettings(config),
        models: task.models.map((model) => ({
          role: model.role as Role,
          hfConfigJson: model.hfConfigJson,
          head: model.head as Head,
          lora: model.base === null ? null : config.model.lora,
          base: baseName(model, task.models, frozenWeights),
        })),
        eosIds: task.tokenizer?.eosIds ?? [],
        slots: config.generation.slots,
        frozenWeights,
        maxSequenceTokens: config.data.maxPromptTokens + config.generation.maxNewTokens,
      });
      this.state.configuredFor = shapes;
      loaded.clear();
    }
    await this.models.loadAll(task.models, frozenWeights);
    this.state.policyVersion = task.policyVersion;
    this.context.metrics.workerPolicyVersion.set(task.policyVersion);
  }

  private async send(message: Omit<RolloutMessage, "sender">): Promise<void> {
    if (!this.call.writable) return;
    if (!this.call.write({ sender: this.session.sender, ...message })) await whenDrained(this.call);
  }
}

const attemptOf = ({ taskId, attempt }: { readonly taskId: string; readonly attempt: number }): string =>
  `${taskId} ${attempt}`;
