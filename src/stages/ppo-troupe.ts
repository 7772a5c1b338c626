/** The callees of the train loop: each of its words carried out by the workers, measured and journalled. */
import { ledgerOf } from "../coordinator/ledger-view.js";
import type { PerformanceBrief } from "../coordinator/dispatcher.js";
import type { JsonValue } from "../coordinator/core/index.js";
import type { StepRequest, StepResult } from "../coordinator/optimizer-steps.js";
import { ppoUpdate, type UpdateStats } from "../coordinator/ppo-update.js";
import type { LoopState, Troupe } from "../coordinator/train-loop.js";
import { PromptSource } from "../data/batches.js";
import type { PromptRow } from "../data/types.js";
import { importanceOf } from "../learner/stage-settings.js";
import type { ExperienceStats } from "../rl/stats.js";
import type { Experience, Prompt, ScoredRollout } from "../rl/types.js";
import { inSlices, type Steps } from "../shared/steps.js";
import { shardCountOf } from "./micro-shards.js";
import type { PolicyVersions, PpoModels } from "./policy-versions.js";
import type { PpoMinibatches } from "./ppo-minibatches.js";
import { checkPreflight, reportIteration } from "./ppo-report.js";
import type { PpoSchedule } from "./ppo-schedule.js";
import type { ProximalPolicy } from "./proximal-policy.js";
import type { RunContext } from "./run-context.js";

export interface PpoTroupeParts {
  readonly models: PpoModels;
  readonly brief: PerformanceBrief;
  readonly versions: PolicyVersions;
  readonly minibatches: PpoMinibatches;
  readonly schedule: PpoSchedule;
  readonly proximal: ProximalPolicy;
}

export class PpoTroupe implements Troupe {
  private readonly prompts: PromptSource<PromptRow>;
  // Of the iteration under way, for its report.
  private collectSeconds = 0;
  private collected: readonly ScoredRollout[] = [];
  private trainedVersion = 0;
  private droppedBefore = 0;

  constructor(
    private readonly run: RunContext,
    private readonly parts: PpoTroupeParts,
  ) {
    this.prompts = new PromptSource(run.data.ppo.train, run.config.seed);
  }

  nextPrompts(iteration: number, cursor: number): { prompts: Prompt[]; nextCursor: number } {
    const { config, data, host } = this.run;
    const { rolloutBatchSize, generationBatches, samplesPerPrompt } = config.ppo;
    const size = data.ppo.train.length;
    this.prompts.seek({ epoch: Math.floor(cursor / size), offset: cursor % size });
    const count = rolloutBatchSize * generationBatches;
    // Numbered by place in the iteration: a small split may draw the same prompt twice.
    const prompts = this.prompts.next(count).flatMap(({ promptIds }, promptIndex) =>
      Array.from({ length: samplesPerPrompt }, (_, sampleIndex): Prompt => {
        const experienceId = `${iteration}/${promptIndex}/${sampleIndex}`;
        return { promptIndex, sampleIndex, experienceId, promptIds };
      }),
    );
    host.dispatch({ type: "IterationStarted", iteration, promptCursor: cursor });
    return { prompts, nextCursor: cursor + count };
  }

  ask(iteration: number, prompts: readonly Prompt[], oldestVersion: number): void {
    this.run.dispatcher.ask(iteration, prompts, oldestVersion, this.parts.brief);
  }

  async perform(
    iteration: number,
    prompts: readonly Prompt[],
    oldestVersion: number,
  ): Promise<ScoredRollout[]> {
    const { config, dispatcher, metrics, logger, signal } = this.run;
    const { frozenWeights } = config.engine;
    const startedMs = performance.now();
    this.droppedBefore = this.droppedCount();
    metrics.iteration.set(iteration);
    const rollouts = await dispatcher.collect(iteration, prompts, oldestVersion, this.parts.brief, signal);
    if (iteration === 0) {
      const offset = checkPreflight.rollouts(rollouts, frozenWeights);
      logger.info({ offset, frozen_weights: frozenWeights }, "preflight offset");
    }
    this.collectSeconds = (performance.now() - startedMs) / 1000;
    metrics.iterationPhaseDuration.observe({ phase: "collect" }, this.collectSeconds);
    this.collected = rollouts;
    return rollouts;
  }

  async reassess(
    { iteration, policyVersion }: LoopState,
    rollouts: readonly ScoredRollout[],
  ): Promise<readonly ScoredRollout[]> {
    if (importanceOf(this.run.config.ppo) === null) return rollouts;
    return this.parts.proximal.measure(iteration, policyVersion, rollouts);
  }

  async update(
    { iteration, policyVersion, klController, optimizerSteps }: LoopState,
    minibatches: readonly (readonly Experience[])[],
  ): Promise<UpdateStats> {
    const { config, learners, metrics } = this.run;
    const { ppoEpochs } = config.ppo;
    const { schedule } = this.parts;
    this.trainedVersion = policyVersion;
    const experiences = minibatches.flat();
    this.parts.minibatches.keep(iteration, experiences);
    const stats = await ppoUpdate(minibatches, (request) => this.step(request), {
      ...{ iteration, ppoEpochs, seed: config.seed, stepsBefore: optimizerSteps, klCoef: klController.coef },
      rounds: learners.averagesParameters
        ? {
            every: learners.minibatchesPerStep,
            minibatchesBefore: iteration * schedule.stepsPerIteration,
          }
        : null,
      shardCountOf: (rows) => shardCountOf(rows, config.cluster.microShards),
    });
    metrics.iterationPhaseDuration.observe({ phase: "update" }, stats.elapsedMs / 1000);
    await inSlices(observingStaleness(metrics, policyVersion, experiences));
    return stats;
  }

  async publish(policyVersion: number): Promise<void> {
    const startedMs = performance.now();
    await this.parts.versions.publish(policyVersion);
    const seconds = (performance.now() - startedMs) / 1000;
    this.run.metrics.iterationPhaseDuration.observe({ phase: "publish" }, seconds);
  }

  async commit(state: LoopState): Promise<void> {
    const { config, host, store, checkpointer } = this.run;
    const { iteration, promptCursor, optimizerSteps } = state;
    const resume = state as unknown as JsonValue;
    store.releaseUpTo(iteration - 1);
    host.dispatch({ type: "IterationCommitted", iteration: iteration - 1, promptCursor, resume });
    const { everyIterations } = config.checkpoint;
    const isDue = everyIterations > 0 && iteration % everyIterations === 0;
    if (!isDue || iteration >= config.ppo.iterations) return;
    const isSaved = await checkpointer.save({
      ...{ stage: "ppo", step: optimizerSteps, completedUnits: iteration, resume },
      ...{ model: this.parts.models.policy, role: "actor", head: "lm" },
    });
    if (isSaved) await this.parts.proximal.prune();
  }

  report(iteration: number, experience: ExperienceStats, update: UpdateStats, klCoef: number): void {
    const { schedule } = this.parts;
    reportIteration(this.run, {
      ...{ iteration, experience, update, klCoef },
      policyVersion: this.trainedVersion,
      collectSeconds: this.collectSeconds,
      isAsynchronous: this.run.config.ppo.staleness > 0,
      rollouts: this.collected,
      dropped: this.droppedCount() - this.droppedBefore,
      learningRates: schedule.learningRates((iteration + 1) * schedule.stepsPerIteration),
    });
  }

  private async step(request: StepRequest): Promise<StepResult> {
    const { learners, metrics, signal } = this.run;
    const result = await learners.step(request, signal);
    if (request.step === 1) checkPreflight.firstStep(result.firstSums);
    metrics.optimizerStep.set(request.step);
    return result;
  }

  private droppedCount(): number {
    return ledgerOf(this.run.host.state.durable.counts).dropped;
  }
}

function* observingStaleness(
  metrics: RunContext["metrics"],
  policyVersion: number,
  experiences: readonly Experience[],
): Steps<void> {
  for (const experience of experiences) {
    metrics.experienceStaleness.observe(policyVersion - experience.policyVersion);
    yield;
  }
}
