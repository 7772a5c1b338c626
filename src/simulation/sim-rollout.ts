/** A simulated rollout worker: one task at a time, every result sent again until it is answered. */
import type { AssignTask, LearnerPosition } from "../coordinator/core/index.js";
import { SimProcess, type ToWorker } from "./sim-process.js";
import { sampleContent } from "./toy-model.js";
import type { World } from "./world.js";

const RESEND_MS = 350;
const GENERATE_MS = 15;
const CREDITS = 2;
export const EXPERIENCE_BYTES = 10;

interface Result {
  readonly taskId: string;
  readonly attempt: number;
  readonly experienceId: string;
  readonly policyVersion: number;
  readonly content: number;
}

interface HeldTask {
  readonly task: AssignTask;
  readonly left: string[];
  /** Experiences made. */
  tokens: number;
}

export class SimRollout extends SimProcess {
  private policyVersion = -1;
  private parameters = 0;
  private tasks: HeldTask[] = [];
  /** Every id is made; over when every verdict is in. */
  private finishing: AssignTask[] = [];
  private unanswered = new Map<string, Result>();
  private isBusy = false;

  constructor(world: World, workerId: string) {
    super(world, workerId, "rollout");
  }

  protected reset(): void {
    this.policyVersion = -1;
    this.tasks = [];
    this.finishing = [];
    this.unanswered = new Map();
    this.isBusy = false;
    this.every(RESEND_MS, () => {
      this.deliver([...this.unanswered.values()]);
    });
  }

  protected detached(): void {
    // Results already made are offered again under the next incarnation: late, but perhaps still wanted.
    this.tasks = [];
    this.finishing = [];
  }

  protected position(): LearnerPosition | null {
    return null;
  }

  protected heldPolicy(): number {
    return this.policyVersion;
  }

  protected heartbeat(): void {
    const progress = this.tasks.map(({ task, tokens }, place) => ({
      taskId: task.taskId,
      attempt: task.attempt,
      tokens: place === 0 ? tokens + 1 : 0,
    }));
    this.signed((me) => ({ type: "WorkerHeartbeat", ...me, policyVersion: this.policyVersion, progress }));
    this.signed((me) => ({
      type: "WorkerReady",
      ...me,
      credits: CREDITS,
      policyVersion: this.policyVersion,
    }));
  }

  protected handle(message: ToWorker): void {
    switch (message.type) {
      case "AnnounceVersion":
      case "RefreshPolicy":
      case "AckHeartbeat":
        if (message.policyVersion > this.policyVersion) this.fetchWeights(message.policyVersion);
        return;
      case "Weights":
        if (message.policyVersion <= this.policyVersion) return;
        this.policyVersion = message.policyVersion;
        this.parameters = message.parameters;
        this.signed((me) => ({
          type: "WorkerReady",
          ...me,
          credits: CREDITS,
          policyVersion: this.policyVersion,
        }));
        return;
      case "AssignTask":
        if (message.incarnation !== this.incarnation) return;
        if (this.tasks.some(({ task }) => task.taskId === message.taskId && task.attempt >= message.attempt))
          return;
        this.tasks.push({ task: message, left: [...message.experienceIds], tokens: 0 });
        this.work();
        return;
      case "CancelTask":
        this.tasks = this.tasks.filter(
          ({ task }) => task.taskId !== message.taskId || task.attempt !== message.attempt,
        );
        return;
      case "AckExperiences":
        for (const { experienceId } of message.experiences) this.answered(experienceId);
        return;
      case "AckEvaluation":
        this.answered(message.taskId);
        return;
      default:
    }
  }

  private fetchWeights(policyVersion: number): void {
    this.toCoordinator((coordinator) => coordinator.sendWeights(this.workerId, policyVersion));
  }

  private work(): void {
    if (this.isBusy || this.tasks.length === 0) return;
    this.isBusy = true;
    this.later(GENERATE_MS * this.slowness, () => {
      this.isBusy = false;
      if (this.tasks.length > 0) this.generate(this.tasks[0]);
      this.work();
    });
  }

  private generate(held: HeldTask): void {
    const { taskId, attempt, kind } = held.task;
    const experienceId = held.left.shift() ?? "";
    if (this.world.isPoison(experienceId)) {
      this.kill(true);
      this.world.scheduler.after(300, () => this.start());
      return;
    }
    held.tokens += 1;
    const { policyVersion } = this;
    const content = sampleContent(experienceId, this.parameters);
    // An evaluation is answered once, with all of it.
    const isEvaluation = kind === "evaluation";
    if (!isEvaluation || held.left.length === 0) {
      const result = {
        taskId,
        attempt,
        experienceId: isEvaluation ? "" : experienceId,
        policyVersion,
        content,
      };
      this.unanswered.set(isEvaluation ? taskId : experienceId, result);
      this.deliver([result]);
    }
    if (held.left.length > 0) return;
    this.tasks.shift();
    this.finishing.push(held.task);
  }

  /** Experiences go together in one message, evaluations each in its own. */
  private deliver(results: readonly Result[]): void {
    const experiences = results.filter(({ experienceId }) => experienceId !== "");
    for (const { experienceId, taskId, attempt } of results)
      if (experienceId === "") this.signed((me) => ({ type: "EvaluationReceived", ...me, taskId, attempt }));
    if (experiences.length === 0) return;
    this.signed(
      (me) => ({
        type: "ExperiencesReceived",
        ...me,
        experiences: experiences.map(({ taskId, attempt, experienceId, policyVersion }) => ({
          taskId,
          attempt,
          experienceId,
          policyVersion,
          bytes: EXPERIENCE_BYTES,
          isFinite: !this.world.isNonFinite(experienceId),
        })),
      }),
      new Map(experiences.map(({ experienceId, content }) => [experienceId, content])),
    );
  }

  private answered(key: string): void {
    this.unanswered.delete(key);
    for (const task of this.finishing) {
      if (task.experienceIds.some((id) => this.unanswered.has(id)) || this.unanswered.has(task.taskId))
        continue;
      this.finishing = this.finishing.filter((other) => other !== task);
      this.signed((me) => ({ type: "TaskFinished", ...me, taskId: task.taskId, attempt: task.attempt }));
    }
  }
}
