/**
 * Generation work: the train loop asks for prompts to be performed, the core decides who does which task when, this
 * file turns its decisions into messages and the answers into rollouts.
 *
 * Every prompt asked for comes back exactly once: as a rollout, or counted under the reason it never will.
 */
import type { Logger } from "../observability/logger.js";
import type { Metrics } from "../observability/metrics.js";
import type { ExperienceId, Prompt, ScoredRollout } from "../rl/types.js";
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
import type { AckEvaluation, AssignTask, TaskRequest } from "./core/index.js";
import type { CoreHost } from "./core-host.js";
import type { DroppedPrompts } from "./dropped-prompts.js";
import { ExperienceIntake } from "./experience-intake.js";
import type { AskedFor } from "./asked-for.js";
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
  /** Token ids of answers lie below it: the actor's, which may have more than its tokenizer. */
  readonly vocabularySize: number;
  /** What ends an answer besides the end token. @default nothing */
  readonly stops?: StopTable | null;
}

interface Task {
  readonly brief: PerformanceBrief;
  readonly prompts: readonly Prompt[];
  /** Who got it last. */
  workerId?: string;
  /** What the last attempt that failed said. */
  lastFailure?: string;
}

interface Evaluation {
  readonly done: Deferred<void>;
  readonly answers: Map<ExperienceId, ScoredRollout>;
}

export interface DispatcherOptions {
  readonly host: CoreHost;
  readonly store: ExperienceStore;
  readonly directory: WorkerDirectory;
  readonly metrics: Metrics<"coordinator">;
  readonly logger: Logger;
  readonly runId: string;
  readonly promptsPerTask: number;
  /** Told of every prompt that will not be answered, for people. @default nobody is */
  readonly dropped?: Pick<DroppedPrompts, "note">;
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
  private readonly evaluations = new Map<string, Evaluation>();

  constructor(private readonly options: DispatcherOptions) {
    const { host } = options;
    this.intake = new ExperienceIntake({
      ...options,
      isEvaluation: (taskId) => this.isEvaluation(taskId),
      asked: (taskId, experienceId) => this.asked(taskId, experienceId),
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
    host.on("AckEvaluation", (effect) => this.keepAnswers(effect));
    host.on("ExperiencesGivenUp", ({ experienceIds, reason }) => {
      for (const id of experienceIds) this.noteDropped(id, reason);
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
      if (effect.experienceIds.length === 0 && effect.abandoned > 0)
        return waiting.done.reject(
          new TroupeError(
            (host.state.durable.counts.abandoned["nonfinite"] ?? 0) > 0 ? "NUMERIC" : "DATA",
            `iteration ${effect.iteration}: none of its ${effect.abandoned} prompts was answered; dropped.jsonl says why`,
          ),
        );
      waiting.done.resolve(effect.experienceIds);
    });
    host.on("CollectRefused", (effect) =>
      this.collections
        .get(effect.iteration)
        ?.done.reject(new TroupeError("INTERNAL", `iteration ${effect.iteration}: ${effect.reason}`)),
    );
    host.on("EvaluationCompleted", ({ evaluationId }) => this.evaluations.get(evaluationId)?.done.resolve());
    host.on("ReleaseWorker", (effect) => this.streams.end(effect.workerId, effect.incarnation));
    host.on("FenceWorker", (effect) => this.streams.end(effect.workerId, effect.incarnation, effect));
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
      tasks: requestsOf(tasks),
    });
    this.intake.takeEarly();
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

  /**
   * Answers to evaluation prompts, in prompt order; they never enter the ledger. null: the prompt was given up, or its
   * answer is not finite.
   * @throws {TroupeError} NUMERIC or DATA when no prompt was answered
   */
  async evaluate(
    evaluationId: string,
    prompts: readonly Prompt[],
    policyVersion: number,
    brief: PerformanceBrief,
    signal: AbortSignal,
  ): Promise<(ScoredRollout | null)[]> {
    const tasks = this.cut(evaluationId, prompts, brief);
    const evaluation: Evaluation = { done: makeDeferred<void>(), answers: new Map() };
    this.evaluations.set(evaluationId, evaluation);
    try {
      this.options.host.dispatch({
        type: "EvaluationRequested",
        evaluationId,
        policyVersion,
        tasks: requestsOf(tasks),
      });
      await abortable(evaluation.done.promise, signal);
      const { answers } = evaluation;
      if (answers.size === 0 && prompts.length > 0)
        throw new TroupeError(
          "NUMERIC",
          `evaluation ${evaluationId}: none of its ${prompts.length} prompts has a usable answer; dropped.jsonl says why`,
        );
      return prompts.map(({ experienceId }) => answers.get(experienceId) ?? null);
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
      const type = this.hasEvaluated(taskId, attempt) ? "EvaluationReceived" : "TaskFinished";
      host.dispatch({ type, ...from, taskId, attempt });
    } else if (message.failed) {
      const { taskId, attempt, errorCode, message: text } = message.failed;
      this.options.logger.error({ worker_id: workerId, task_id: taskId, code: errorCode }, text);
      const task = this.tasks.get(taskId);
      if (task !== undefined) task.lastFailure = `${workerId}: ${text}`;
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
    const prompts = task.prompts.filter((prompt) => open.has(prompt.experienceId));
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

  /** Whether every answer that the attempt at an evaluation task owes is here. */
  private hasEvaluated(taskId: string, attempt: number): boolean {
    if (!this.isEvaluation(taskId)) return false;
    const assigned = this.options.host.state.volatile.tasks.get(taskId)?.assigned.get(attempt);
    // Of an attempt that is not known the core says so.
    return (assigned?.experienceIds ?? []).every((id) => this.intake.hasEvaluated(taskId, attempt, id));
  }

  private keepAnswers(effect: AckEvaluation): void {
    const { rollouts, nonFinite } = this.intake.takeEvaluation(effect);
    const evaluation = this.evaluations.get(evaluationOf(effect.taskId));
    if (effect.outcome !== "accepted" || evaluation === undefined) return;
    for (const rollout of rollouts) evaluation.answers.set(rollout.experienceId, rollout);
    for (const id of nonFinite) this.noteDropped(id, "nonfinite");
  }

  /** What a worker was asked for under an id; "early" when the core knows the task and the train loop has not come to it. */
  private asked(taskId: string, experienceId: ExperienceId): AskedFor | "early" | undefined {
    const task = this.tasks.get(taskId);
    if (task === undefined) return this.options.host.state.volatile.tasks.has(taskId) ? "early" : undefined;
    const prompt = task.prompts.find((one) => one.experienceId === experienceId);
    return prompt && { prompt, brief: task.brief };
  }

  /** Rare: a look at every task costs nothing then. */
  private noteDropped(experienceId: ExperienceId, reason: string): void {
    for (const [, { prompts, lastFailure }] of this.tasks) {
      const prompt = prompts.find((one) => one.experienceId === experienceId);
      if (prompt !== undefined) return this.options.dropped?.note(prompt, reason, lastFailure);
    }
    this.options.dropped?.note({ experienceId }, reason);
  }
}

const requestsOf = (tasks: readonly [string, Task][]): TaskRequest[] =>
  tasks.map(([taskId, { prompts }]) => ({
    taskId,
    experienceIds: prompts.map(({ experienceId }) => experienceId),
  }));

const evaluationOf = (taskId: string): string => taskId.slice(0, taskId.lastIndexOf("#"));
