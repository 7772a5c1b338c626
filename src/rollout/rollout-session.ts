/**
 * One registration of a rollout worker: tasks come down the stream, experiences go up.
 *
 *   task ─► load the weights it names ─► generate ─► score ─► batches of experiences ─► done
 *
 * Two tasks are held at a time, so that the next one is here when this one ends. A task is worked on whole; its
 * experiences leave in batches and each is acknowledged when it is durable. When the stream breaks, the session ends at
 * once, so that the worker is soon back; the task at work goes on, and its answers are offered on the next stream. Whoever
 * gets the task meanwhile samples the same tokens: they depend on nothing but seed, id and weights.
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
import type { Session } from "../worker/coordinator-link.js";
import type { WorkerContext } from "../worker/start-worker.js";
import { engineSettings } from "../worker/engine-settings.js";
import { ModelLoader, baseName } from "./model-loader.js";
import type { Role } from "./rollout-compute.js";
import { keyOf, type RolloutState } from "./rollout-state.js";
import { whileItAdvances } from "./stall-watch.js";
import { advancedBy, noteAdvance, type TaskSignals } from "./task-signals.js";
import type { Head } from "../models/model-spec.js";

/** Tasks held at once: one in work, one waiting. */
const CREDITS = 2;

export class RolloutSession {
  private readonly artifacts: ArtifactClient;
  private readonly models: ModelLoader;
  private readonly call: ClientDuplexStream<RolloutMessage, RolloutDirective__Output>;
  private readonly tasks = new AsyncQueue<RolloutTask__Output>();
  /** Of the task this session has at work. */
  private signals: TaskSignals | undefined;

  constructor(
    private readonly state: RolloutState,
    private readonly session: Session,
    private readonly context: WorkerContext<"rollout">,
  ) {
    const advance = () => this.signals && noteAdvance(this.signals);
    this.artifacts = new ArtifactClient(session.clients, session.sender, advance);
    this.models = new ModelLoader(state, this.artifacts, (seconds) =>
      context.metrics.weightTransferDuration.observe(seconds),
    );
    this.call = session.clients.rollout.perform() as ClientDuplexStream<
      RolloutMessage,
      RolloutDirective__Output
    >;
  }

  /** @throws {TroupeError} INTERNAL when the compute thread hangs */
  async run(): Promise<void> {
    const { call, session, state, tasks } = this;
    // The loop below reports errors; one that comes after it ended (the cancel in `finally`) is old news.
    call.on("error", () => undefined);
    const askToLeave = () => void this.send({ draining: {} });
    const cancel = () => call.cancel();
    session.draining.addEventListener("abort", askToLeave, { once: true });
    session.signal.addEventListener("abort", cancel, { once: true });
    state.onStalled = cancel;
    state.wanted.clear();
    void this.work()
      .finally(() => this.artifacts.close())
      .catch((error: unknown) => this.context.logger.error({ err: error }, "the worker's loop failed"));
    try {
      await this.send({ ready: { credits: CREDITS } });
      void state.uplink.attach((experiences) => this.send({ experiences: { experiences } }));
      if (session.draining.aborted) askToLeave();
      for await (const directive of call) {
        const { task, acks, cancel } = directive as RolloutDirective__Output;
        if (task) {
          const { taskId, attempt } = task;
          state.wanted.set(keyOf(task), { taskId, attempt });
          tasks.push(task);
        }
        for (const { experienceIds } of acks?.acks ?? []) state.uplink.acknowledge(experienceIds);
        if (cancel) state.cancel(cancel);
      }
    } catch (error) {
      throw state.stalled ?? error;
    } finally {
      tasks.close();
      session.draining.removeEventListener("abort", askToLeave);
      session.signal.removeEventListener("abort", cancel);
      call.cancel();
      state.uplink.detach();
    }
    if (state.stalled !== undefined) throw state.stalled;
  }

  private get isOver(): boolean {
    return this.session.signal.aborted || this.call.destroyed;
  }

  private async work(): Promise<void> {
    for await (const task of this.tasks) {
      const { taskId, attempt } = task;
      await this.state.inTurn({ taskId, attempt }, async (signals) => {
        if (this.isOver || !this.state.wanted.has(keyOf(task))) return;
        this.signals = signals;
        try {
          await this.perform(task, signals);
        } catch (error) {
          await this.tellFailure(task, error);
        }
        this.signals = undefined;
        if (!this.isOver) this.state.wanted.delete(keyOf(task));
      });
    }
  }

  private async tellFailure({ taskId, attempt }: RolloutTask__Output, error: unknown): Promise<void> {
    const errorCode = errorCodeOf(error);
    // It was taken away, or its session ended while weights were on their way: whoever has it now does it.
    if (errorCode === "CANCELLED" || this.isOver) return;
    this.context.logger.error({ err: error, task_id: taskId }, "task failed");
    await this.send({ failed: { taskId, attempt, errorCode, message: describeError(error) } });
  }

  private async perform(task: RolloutTask__Output, signals: TaskSignals): Promise<void> {
    const { compute, uplink } = this.state;
    const { metrics } = this.context;
    await this.load(task);
    noteAdvance(signals);
    const { sampling } = task;
    if (sampling === null) throw protocolError(`task ${task.taskId}: sampling is not set`);
    const computing = compute.run("perform", {
      prompts: task.prompts.map(fromPromptRow),
      policyVersion: task.policyVersion,
      sampling,
      stops: task.stops === null ? null : fromStopTable(task.stops),
      needs: { score: task.score },
      signals,
    });
    const { rollouts, generateMs, scoreMs } = await whileItAdvances(
      computing,
      () => advancedBy(signals),
      this.session.config.cluster.taskTimeoutMs,
      `task ${task.taskId}`,
      (error) => this.state.stall(error),
    );
    for (const rollout of rollouts) {
      metrics.experiencesGenerated.inc();
      metrics.rolloutTokens.inc({ kind: "prompt" }, rollout.promptIds.length);
      metrics.rolloutTokens.inc({ kind: "response" }, rollout.responseIds.length);
      await uplink.push(rollout.experienceId, encodeExperience(task.taskId, task.attempt, rollout));
    }
    await uplink.flush();
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
