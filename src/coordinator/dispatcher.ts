/**
 * Generation work: the train loop asks for prompts to be performed, the core decides who does which task when, this
 * file turns its decisions into messages and the answers into rollouts.
 *
 * Every prompt asked for comes back exactly once: as a rollout, or counted under the reason it never will.
 */
import type { Logger } from "../observability/logger.js";
import type { Metrics } from "../observability/metrics.js";
import type { Prompt, ScoredRollout } from "../rl/types.js";
import { toPromptRow } from "../rpc/codec/prompt-row.js";
import type { ModelRef } from "../rpc/generated/troupe/v1/ModelRef.js";
import type { RolloutDirective } from "../rpc/generated/troupe/v1/RolloutDirective.js";
import type { RolloutMessage__Output } from "../rpc/generated/troupe/v1/RolloutMessage.js";
import type { RolloutServiceHandlers } from "../rpc/generated/troupe/v1/RolloutService.js";
import type { StopTable } from "../rpc/generated/troupe/v1/StopTable.js";
import type { Sampling } from "../rpc/generated/troupe/v1/Sampling.js";
import type { TokenizerInfo } from "../rpc/generated/troupe/v1/TokenizerInfo.js";
import { abortable, makeDeferred, type Deferred } from "../shared/abort.js";
import { TroupeError } from "../shared/errors.js";
import type { AssignTask } from "./core/index.js";
import type { CoreHost } from "./core-host.js";
import { ExperienceIntake } from "./experience-intake.js";
import type { ExperienceStore } from "./experience-store.js";
import { StreamRegistry } from "./stream-registry.js";
import type { WorkerDirectory } from "./worker-directory.js";
import { serveWorkerStream } from "./worker-stream.js";

/** What a task needs besides its prompts. */
export interface PerformanceBrief {
  readonly models: (policyVersion: number) => readonly ModelRef[];
  readonly tokenizer: TokenizerInfo;
  readonly sampling: Sampling;
  readonly score: boolean;
  /** What ends an answer besides the end token. @default nothing */
  readonly stops?: StopTable | null;
}

interface Task {
  readonly brief: PerformanceBrief;
  readonly prompts: readonly Prompt[];
  /** Who got it last. */
  workerId?: string;
}

export interface DispatcherOptions {
  readonly host: CoreHost;
  readonly store: ExperienceStore;
  readonly directory: WorkerDirectory;
  readonly metrics: Metrics<"coordinator">;
  readonly logger: Logger;
  readonly runId: string;
  readonly promptsPerTask: number;
}

export class Dispatcher {
  private readonly streams = new StreamRegistry<RolloutDirective>();
  private readonly tasks = new Map<string, Task>();
  /** Handed out before anybody asked: after a restart the core knows the open collection before the train loop does. */
  private readonly earlyAssignments = new Map<string, AssignTask>();
  private readonly intake: ExperienceIntake;
  private readonly collections = new Map<
    number,
    { readonly done: Deferred<readonly string[]>; readonly policyVersion: number }
  >();
  private readonly evaluations = new Map<
    string,
    { readonly done: Deferred<void>; readonly results: Map<string, ScoredRollout[]> }
  >();

  constructor(private readonly options: DispatcherOptions) {
    const { host } = options;
    this.intake = new ExperienceIntake({
      ...options,
      isEvaluation: (taskId) => this.isEvaluation(taskId),
      sendAcks: (workerId, acks) => void this.streams.send(workerId, { acks: { acks } }),
    });
    host.on("AssignTask", (effect) => this.assign(effect));
    host.on("CancelTask", ({ workerId, taskId, attempt }) => {
      if (this.earlyAssignments.get(taskId)?.attempt === attempt) this.earlyAssignments.delete(taskId);
      this.streams.send(workerId, { cancel: { taskId, attempt } });
    });
    // A task names the weights it needs and the worker loads them before it starts, so any worker may take any task.
    let refreshed: { workerId: string; incarnation: number }[] = [];
    host.on("RefreshPolicy", ({ workerId, incarnation, policyVersion }) => {
      if (refreshed.push({ workerId, incarnation }) > 1) return;
      queueMicrotask(() => {
        const workers = refreshed;
        refreshed = [];
        host.dispatch({ type: "PolicyHeld", policyVersion, workers });
      });
    });
    host.on("AckEvaluation", (effect) => {
      const rollouts = this.intake.takeEvaluation(effect);
      if (effect.outcome === "accepted")
        this.evaluations.get(evaluationOf(effect.taskId))?.results.set(effect.taskId, rollouts);
    });
    host.on("CollectCompleted", (effect) => {
      const waiting = this.collections.get(effect.iteration);
      // Asked for ahead of time; or decided before a version that may have dropped some: asked again since.
      if (waiting === undefined || effect.policyVersion < waiting.policyVersion) return;
      if (effect.abandoned > 0)
        options.logger.warn(
          { iteration: effect.iteration, abandoned: effect.abandoned },
          "some prompts will never be answered",
        );
      waiting.done.resolve(effect.experienceIds);
    });
    host.on("CollectRefused", (effect) =>
      this.collections
        .get(effect.iteration)
        ?.done.reject(new TroupeError("INTERNAL", `iteration ${effect.iteration}: ${effect.reason}`)),
    );
    host.on("EvaluationCompleted", (effect) => {
      const evaluation = this.evaluations.get(effect.evaluationId);
      if (effect.failedTaskIds.length === 0) evaluation?.done.resolve();
      else
        evaluation?.done.reject(
          new TroupeError(
            "INTERNAL",
            `evaluation ${effect.evaluationId}: ${effect.failedTaskIds.length} tasks failed on every worker; see the workers' logs`,
          ),
        );
    });
    host.on("ReleaseWorker", (effect) => this.streams.end(effect.workerId, effect.incarnation));
    host.on("FenceWorker", (effect) => this.streams.end(effect.workerId, effect.incarnation, effect.reason));
  }

  /** Experiences that have arrived and that the core has not decided on, bytes. */
  get intakeBytes(): number {
    return this.intake.bytes;
  }

  /** Asks for experiences that `collect` will wait for later. */
  ask(
    iteration: number,
    prompts: readonly Prompt[],
    oldestVersion: number,
    brief: PerformanceBrief,
  ): [string, Task][] {
    const tasks = this.cut(`collect/${iteration}`, prompts, brief);
    this.options.host.dispatch({
      type: "CollectRequested",
      iteration,
      policyVersion: oldestVersion,
      tasks: tasks.map(([taskId, task]) => ({
        taskId,
        experienceIds: task.prompts.map((prompt) => prompt.experienceId),
      })),
    });
    return tasks;
  }

  /**
   * Experiences of one iteration, admitted exactly once each, in id order. Prompts given up are counted by the core.
   * @param oldestVersion of the policy that may sample them
   */
  async collect(
    iteration: number,
    prompts: readonly Prompt[],
    oldestVersion: number,
    brief: PerformanceBrief,
    signal: AbortSignal,
  ): Promise<ScoredRollout[]> {
    const done = makeDeferred<readonly string[]>();
    const { policyVersion } = this.options.host.state.durable;
    this.collections.set(iteration, { done, policyVersion });
    const tasks = this.ask(iteration, prompts, oldestVersion, brief);
    try {
      const ids = await abortable(done.promise, signal);
      return await this.options.store.getAll(ids);
    } finally {
      this.collections.delete(iteration);
      if (!signal.aborted) this.forget(tasks);
    }
  }

  /** Answers to evaluation prompts, in prompt order; they never enter the ledger. */
  async evaluate(
    evaluationId: string,
    prompts: readonly Prompt[],
    policyVersion: number,
    brief: PerformanceBrief,
    signal: AbortSignal,
  ): Promise<ScoredRollout[]> {
    const tasks = this.cut(evaluationId, prompts, brief);
    const evaluation = { done: makeDeferred<void>(), results: new Map<string, ScoredRollout[]>() };
    this.evaluations.set(evaluationId, evaluation);
    try {
      this.options.host.dispatch({
        type: "EvaluationRequested",
        evaluationId,
        policyVersion,
        taskIds: tasks.map(([taskId]) => taskId),
      });
      await abortable(evaluation.done.promise, signal);
      const byId = new Map(
        [...evaluation.results.values()].flat().map((rollout) => [rollout.experienceId, rollout]),
      );
      return prompts.map((prompt) => {
        const rollout = byId.get(prompt.experienceId);
        if (rollout === undefined)
          throw new TroupeError(
            "INTERNAL",
            `evaluation ${evaluationId}: no answer for prompt ${prompt.experienceId}`,
          );
        return rollout;
      });
    } finally {
      if (!signal.aborted) {
        this.evaluations.delete(evaluationId);
        this.forget(tasks);
      }
    }
  }

  /** The gRPC side: one long-lived stream per rollout worker. */
  readonly service: RolloutServiceHandlers = {
    Perform: (call) => {
      const { streams } = this;
      serveWorkerStream(call, { ...this.options, role: "rollout", streams }, (message, from) => {
        const { workerId, incarnation } = from;
        if (!streams.has(workerId) || message.ready) streams.bind(workerId, incarnation, call);
        this.receive(message, workerId, incarnation);
        this.intake.holdBack(call);
        streams.holdBack(call);
      });
    },
  };

  private receive(message: RolloutMessage__Output, workerId: string, incarnation: number): void {
    const { host, directory } = this.options;
    const from = { workerId, incarnation };
    if (message.ready) {
      host.dispatch({
        type: "WorkerReady",
        ...from,
        credits: message.ready.credits,
        policyVersion: directory.get(workerId)?.policyVersion ?? -1,
      });
    } else if (message.experiences) {
      this.intake.receive(message.experiences.experiences, from);
    } else if (message.done) {
      const { taskId, attempt } = message.done;
      host.dispatch({
        type: this.isEvaluation(taskId) ? "EvaluationReceived" : "TaskFinished",
        ...from,
        taskId,
        attempt,
      });
    } else if (message.failed) {
      const { taskId, attempt, errorCode, message: text } = message.failed;
      this.options.logger.error({ worker_id: workerId, task_id: taskId, code: errorCode }, text);
      host.dispatch({ type: "TaskFailed", ...from, taskId, attempt, reason: text });
    } else if (message.draining) {
      host.dispatch({ type: "WorkerDraining", ...from });
    }
  }

  private assign(effect: AssignTask): void {
    const { directory, metrics, logger } = this.options;
    const task = this.tasks.get(effect.taskId);
    if (task === undefined) {
      this.earlyAssignments.set(effect.taskId, effect);
      return;
    }
    const open = new Set(effect.experienceIds);
    const prompts =
      effect.kind === "evaluation"
        ? task.prompts
        : task.prompts.filter((prompt) => open.has(prompt.experienceId));
    const card = directory.get(effect.workerId);
    if (card !== undefined)
      card.activity = `${effect.kind === "evaluation" ? "evaluating" : "generating"} ${prompts.length} prompts`;
    const { workerId, taskId, attempt, redelivery } = effect;
    if (redelivery !== null) {
      metrics.rolloutTaskRedeliveries.inc({ reason: redelivery });
      logger.info(
        { worker_id: workerId, task_id: taskId, attempt, reason: redelivery, before: task.workerId },
        "task handed out again",
      );
    }
    task.workerId = workerId;
    this.streams.send(effect.workerId, {
      task: {
        taskId: effect.taskId,
        attempt: effect.attempt,
        policyVersion: effect.policyVersion,
        models: [...task.brief.models(effect.policyVersion)],
        tokenizer: task.brief.tokenizer,
        prompts: prompts.map(toPromptRow),
        sampling: task.brief.sampling,
        score: task.brief.score,
        stops: task.brief.stops ?? null,
      },
    });
  }

  private cut(name: string, prompts: readonly Prompt[], brief: PerformanceBrief): [string, Task][] {
    const { promptsPerTask } = this.options;
    const tasks: [string, Task][] = [];
    for (let first = 0; first < prompts.length; first += promptsPerTask) {
      tasks.push([
        `${name}#${first / promptsPerTask}`,
        { brief, prompts: prompts.slice(first, first + promptsPerTask) },
      ]);
    }
    for (const [taskId, task] of tasks) this.tasks.set(taskId, task);
    for (const [taskId] of tasks) {
      const early = this.earlyAssignments.get(taskId);
      this.earlyAssignments.delete(taskId);
      if (early !== undefined) this.assign(early);
    }
    return tasks;
  }

  /**
   * Results that were never decided on are of attempts nobody waits for. Not when the run is stopped: until its workers
   * have left, the core hands out what waits, and a worker that was given a task it never gets could not leave.
   */
  private forget(tasks: readonly [string, Task][]): void {
    for (const [taskId] of tasks) {
      this.tasks.delete(taskId);
      this.earlyAssignments.delete(taskId);
      this.intake.forget(taskId);
    }
  }

  private isEvaluation(taskId: string): boolean {
    return this.evaluations.has(evaluationOf(taskId));
  }
}

const evaluationOf = (taskId: string): string => taskId.slice(0, taskId.lastIndexOf("#"));
