/** A miniature train loop: collect, ppoEpochs × minibatches, publish, commit, checkpoint; resumes from the journal. */
import type { DurableState, Effect } from "../coordinator/core/index.js";
import type { StepRequest } from "../coordinator/optimizer-steps.js";
import { intoRounds, roundRequest } from "../coordinator/round-manifest.js";
import type { SimCoordinator } from "./sim-coordinator.js";
import { lastIteration } from "./scenario.js";
import { hashOf, INITIAL_PARAMETERS } from "./toy-model.js";
import type { World } from "./world.js";

const STAGE = "ppo";
const READ_RETRY_MS = 200;
const EVALUATION = "after";
const EVALUATION_TASKS = [
  { taskId: "after-0", experienceIds: ["eval/0/0", "eval/1/0"] },
  { taskId: "after-1", experienceIds: ["eval/2/0"] },
];
/** A checkpoint's files take at most so long. */
const WRITE_MS = 40;

export class SimTrainLoop {
  private iteration = 0;
  private nextStep = 1;
  private policyVersion = 0;
  private ids: string[] = [];
  /** Minibatches of the iteration, or rounds of them, still to do; null while collecting. */
  private steps: Pick<StepRequest, "experienceIds" | "input" | "isFinalUse">[] | null = null;
  private readingStep: number | null = null;
  private reads = 0;
  private isAwaiting = false;
  /** A checkpoint of this step, and what the learners say they hold after it. */
  private saving: { readonly step: number; readonly states: Map<string, number> } | null = null;
  /** Voted for the last finished step; "" when it was skipped. */
  private lastHash = "";

  constructor(
    private readonly world: World,
    private readonly coordinator: SimCoordinator,
  ) {}

  start(durable: DurableState): void {
    if (durable.finishedStages.includes(STAGE)) return this.finish();
    this.iteration = durable.committedIteration + 1;
    this.policyVersion = Math.max(0, durable.policyVersion);
    this.nextStep = (durable.resume as { nextStep: number } | null)?.nextStep ?? 1;
    this.coordinator.dispatch({ type: "StageStarted", stage: STAGE });
    if (durable.policyVersion < 0) this.publish(0, INITIAL_PARAMETERS);
    this.begin();
  }

  hear(effect: Effect): void {
    switch (effect.type) {
      case "CollectCompleted":
        // An answer from before the last version may list what that version dropped; it was asked for again since.
        if (effect.iteration !== this.iteration || effect.policyVersion !== this.policyVersion) return;
        if (this.steps === null) this.train(effect.experienceIds);
        return;
      case "CollectRefused":
        throw new Error(`collection ${effect.iteration} refused: ${effect.reason}`);
      case "StepFinished":
        if (this.steps === null || effect.step !== this.nextStep) return;
        this.steps.shift();
        this.lastHash = effect.hash;
        this.nextStep += 1;
        return this.advance();
      case "EvaluationCompleted":
        if (effect.givenUp.length > 0) throw new Error(`evaluation gave up ${effect.givenUp.join(" ")}`);
        return this.finishStage();
      case "StepRefused":
        throw new Error(`step ${effect.step} refused: ${effect.reason} ${effect.missing.join(" ")}`);
      default:
    }
  }

  receiveParameters(step: number, parameters: number, workerId: string): void {
    if (this.saving?.step === step) return this.compare(this.saving, workerId, parameters);
    if (this.readingStep !== step) return;
    // Nothing becomes a policy or a checkpoint that is not what the learners voted for.
    if (!this.isAgreed(step, parameters)) return;
    this.readingStep = null;
    this.close(step, parameters);
  }

  /** A round that was done again may stand at something else than the journal's hash. */
  private isAgreed(step: number, parameters: number): boolean {
    const hash = hashOf(parameters);
    if (this.lastHash === "" || hash === this.lastHash) return true;
    return this.world.scenario.rounds !== null && this.world.wasCommitted(step, hash);
  }

  private begin(): void {
    const { scenario } = this.world;
    if (this.iteration >= lastIteration(scenario)) return this.end();
    this.coordinator.dispatch({
      type: "IterationStarted",
      iteration: this.iteration,
      promptCursor: this.iteration * scenario.prompts,
    });
    this.steps = null;
    for (let ahead = 0; ahead <= scenario.maxStalenessVersions; ahead++) this.collect(ahead);
  }

  /** Asks (again) for the collection of the iteration `ahead` of this one, from the oldest policy it may use. */
  private collect(ahead: number): void {
    const { prompts, promptsPerTask, iterations, maxStalenessVersions } = this.world.scenario;
    const iteration = this.iteration + ahead;
    if (iteration >= iterations) return;
    const tasks = [];
    for (let first = 0; first < prompts; first += promptsPerTask) {
      const size = Math.min(promptsPerTask, prompts - first);
      const experienceIds = Array.from({ length: size }, (_, i) => `${iteration}/${first + i}/0`);
      tasks.push({ taskId: `${iteration}-${first}`, experienceIds });
    }
    this.coordinator.dispatch({
      type: "CollectRequested",
      iteration,
      policyVersion: Math.max(0, this.policyVersion + ahead - maxStalenessVersions),
      tasks,
    });
  }

  private train(ids: readonly string[]): void {
    const { ppoEpochs, minibatchSize, prompts, shardCount, rounds } = this.world.scenario;
    this.ids = [...ids];
    this.coordinator.readContents(ids);
    const minibatches = [];
    for (let epoch = 0; epoch < ppoEpochs; epoch++) {
      for (let first = 0; first < this.ids.length; first += minibatchSize) {
        minibatches.push({
          experienceIds: this.ids.slice(first, first + minibatchSize),
          input: { iteration: this.iteration },
          shardCount,
          isFinalUse: epoch === ppoEpochs - 1,
        });
      }
    }
    if (rounds === null) this.steps = minibatches;
    else {
      let next = 1 + this.iteration * ppoEpochs * Math.ceil(prompts / minibatchSize);
      this.steps = intoRounds(minibatches, rounds.every).map((group, i) => {
        const request = roundRequest(group, this.nextStep + i, next);
        next += group.length;
        return request;
      });
    }
    this.advance();
  }

  private advance(): void {
    const next = this.steps![0];
    if (next === undefined) {
      this.readingStep = this.nextStep - 1;
      return this.read();
    }
    this.coordinator.dispatch({
      type: "StepRequested",
      stage: STAGE,
      step: this.nextStep,
      experienceIds: next.experienceIds,
      input: next.input,
      shardCount: this.world.scenario.shardCount,
      isFinalUse: next.isFinalUse,
    });
  }

  /** Asks a ready learner for its parameters until one answers from the right step. */
  private read(): void {
    if (this.readingStep === null) return;
    const ready = this.readyLearners();
    const learner = ready[this.reads++ % Math.max(1, ready.length)];
    if (learner !== undefined)
      this.coordinator.send(learner, { type: "ReadParameters", step: this.readingStep });
    this.coordinator.later(READ_RETRY_MS, () => this.read());
  }

  /** The core is told when there is none: it ends the run when nobody comes. */
  private readyLearners(): readonly string[] {
    const ready = this.coordinator.ready();
    const isAwaited = ready.length === 0;
    if (isAwaited !== this.isAwaiting) this.coordinator.dispatch({ type: "LearnersAwaited", isAwaited });
    this.isAwaiting = isAwaited;
    return ready;
  }

  private publish(policyVersion: number, parameters: number, step = 0): void {
    if (!this.coordinator.leads) return; // the store refuses one that was replaced
    this.world.history.entries.push({ type: "kept", as: policyVersion, step, parameters });
    this.world.weights.set(policyVersion, parameters);
    this.world.history.finalParameters = parameters;
    this.policyVersion = policyVersion;
    this.coordinator.dispatch({ type: "VersionPublished", policyVersion, sha256: hashOf(parameters) });
  }

  private close(step: number, parameters: number): void {
    const { checkpointEvery, prompts } = this.world.scenario;
    const { iteration, nextStep } = this;
    this.publish(iteration + 1, parameters, step);
    this.coordinator.dispatch({
      type: "IterationCommitted",
      iteration,
      promptCursor: (iteration + 1) * prompts,
      resume: { nextStep },
    });
    this.iteration += 1;
    const isLast = this.iteration >= lastIteration(this.world.scenario);
    if (checkpointEvery === 0 || this.iteration % checkpointEvery !== 0 || isLast) return this.begin();
    this.saving = { step, states: new Map() };
    this.askAll();
  }

  /** Until all that are ready have said what they hold. */
  private askAll(): void {
    const { saving } = this;
    if (saving === null) return;
    for (const workerId of this.readyLearners())
      this.coordinator.send(workerId, { type: "ReadParameters", step: saving.step });
    this.coordinator.later(READ_RETRY_MS, () => this.askAll());
  }

  /** A checkpoint holds what all learners agree on; where they do not, the core decides whose it is. */
  private compare(
    { step, states }: NonNullable<SimTrainLoop["saving"]>,
    workerId: string,
    parameters: number,
  ): void {
    states.set(workerId, parameters);
    const ready = this.coordinator.ready();
    if (ready.some((one) => !states.has(one)) || !ready.includes(workerId)) return;
    const held = ready.map((one) => ({ workerId: one, sha256: hashOf(states.get(one)!) }));
    if (held.some(({ sha256 }) => sha256 !== held[0].sha256)) {
      states.clear();
      return this.coordinator.dispatch({ type: "StatesDiffer", step, states: held });
    }
    this.saving = null;
    this.coordinator.later(this.world.random.between(0, WRITE_MS), () => this.save(step, parameters));
  }

  private save(step: number, parameters: number): void {
    if (!this.coordinator.leads) return; // the store refuses one that was replaced
    const checkpointId = `step-${step}`;
    this.world.checkpoints.set(checkpointId, parameters);
    this.world.history.entries.push({ type: "kept", as: checkpointId, step, parameters });
    this.coordinator.dispatch({ type: "CheckpointSaved", checkpointId, stage: STAGE, step, resume: null });
    this.begin();
  }

  private end(): void {
    this.coordinator.dispatch({ type: "CollectionsCancelled" });
    if (!this.world.scenario.evaluates) return this.finishStage();
    this.coordinator.dispatch({
      type: "EvaluationRequested",
      evaluationId: EVALUATION,
      policyVersion: this.policyVersion,
      tasks: EVALUATION_TASKS,
    });
  }

  private finishStage(): void {
    this.coordinator.dispatch({ type: "StageFinished", stage: STAGE });
    this.finish();
  }

  private finish(): void {
    // Over once the last records are durable.
    this.coordinator.later(50, () => (this.world.history.isFinished = true));
  }
}
