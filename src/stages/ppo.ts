/** Stage 3, PPO: wires the train loop to the workers, measures the policy before and after, saves the result. */
import { hasAdapters, type ModelSource } from "../coordinator/model-folders.js";
import type { JsonValue } from "../coordinator/core/index.js";
import { countedTokens as countedResponseTokens, ppoUpdate } from "../coordinator/ppo-update.js";
import {
  intoBatches,
  trainLoop,
  type LoopState,
  type TrainLoopOptions,
  type Troupe,
} from "../coordinator/train-loop.js";
import type { StepInputs } from "../coordinator/optimizer-steps.js";
import { ledgerOf } from "../coordinator/ledger-view.js";
import { PromptSource } from "../data/batches.js";
import type { ModelRef } from "../rpc/generated/troupe/v1/ModelRef.js";
import type { MicroShard } from "../rpc/codec/shard.js";
import { importanceOf } from "../learner/stage-settings.js";
import { startKlController } from "../rl/kl-controller.js";
import { makingExperience } from "../rl/make-experience.js";
import { learningRateAt } from "../rl/schedule.js";
import {
  IDENTITY_SCORE_NORMALIZER,
  fitScoreNormalizer,
  type ScoreNormalizer,
} from "../rl/score-normalizer.js";
import type { Experience, Prompt, ScoredRollout } from "../rl/types.js";
import { makeDeferred } from "../shared/abort.js";
import { storageError } from "../shared/errors.js";
import { inSlices, type Steps } from "../shared/steps.js";
import { shuffled } from "../rl/shuffle.js";
import { evaluatePolicy, type PolicyEvaluation } from "./evaluate-policy.js";
import { cutMicroShards, shardCountOf } from "./micro-shards.js";
import { checkPreflight, reportIteration } from "./ppo-report.js";
import { ProximalPolicy } from "./proximal-policy.js";
import type { RunContext } from "./run-context.js";
import { countedTokens as countedLanguageTokens } from "./sft.js";

export interface PpoModels {
  readonly policy: ModelSource;
  readonly reward: ModelSource;
}

export interface PpoResult {
  readonly before: PolicyEvaluation;
  readonly after: PolicyEvaluation;
  readonly iterations: number;
  readonly stoppedByKlBudget: boolean;
  readonly stateSha256: string;
}

export async function runPpoStage(run: RunContext, models: PpoModels): Promise<PpoResult> {
  const { config, host, learners, dispatcher, artifacts, checkpointer, bus, metrics, signal } = run;
  const { ppo } = config;
  const startedMs = performance.now();
  /** Versions of actor and critic kept beside the newest: those that may still sample, and one that may still be loading. */
  const versionsKept = ppo.staleness + 1;
  const minibatchesPerIteration =
    Math.ceil((ppo.rolloutBatchSize * ppo.samplesPerPrompt) / ppo.minibatchSize) * ppo.generationBatches;
  const totalSteps = ppo.iterations * ppo.ppoEpochs * minibatchesPerIteration;
  const learningRates = (step: number) => ({
    actor: learningRateAt(ppo.actor, step - 1, totalSteps),
    critic: learningRateAt(ppo.critic, step - 1, totalSteps),
  });

  // ── who plays what ────────────────────────────────────────────────────────────────────────────────────────────
  const actor: ModelRef = { ...models.policy, role: "actor", head: "lm" };
  const critic: ModelRef = { ...models.reward, role: "critic", head: "scalar" };
  // Over a frozen base a version is its adapters: workers hold what these sit on already, as reference and reward model.
  const versioned = (role: string, start: ModelSource, policyVersion: number): Partial<ModelRef> => ({
    parameters: artifacts.get(`${role}/${policyVersion}`),
    base: hasAdapters(config) ? start.parameters : null,
  });
  const replicas = (policyVersion: number): ModelRef[] => [
    { ...actor, ...versioned("actor", models.policy, policyVersion) },
    { ...models.policy, role: "ref", head: "lm" },
    { ...models.reward, role: "reward", head: "scalar" },
    { ...critic, ...versioned("critic", models.reward, policyVersion) },
  ];
  const brief = {
    models: replicas,
    tokenizer: run.tokens,
    sampling: { seed: config.seed, ...config.generation, greedy: false },
    score: true,
    stops: run.stops,
  };

  // ── the learners' side: a step's minibatch, rebuilt from the ids in its manifest ─────────────────────────────────
  let normalizer: ScoreNormalizer = IDENTITY_SCORE_NORMALIZER;
  /** Until then the normalizer is not the stage's own; after a restart steps may be repeated sooner. */
  const scoresMeasured = makeDeferred<void>();
  const experienceOptions = (): TrainLoopOptions["experience"] => ({
    clipRewardValue: ppo.clipRewardValue,
    gamma: ppo.gamma,
    lam: ppo.lam,
    whitenAdvantages: ppo.whitenAdvantages,
    missingEosPenalty: ppo.missingEosPenalty,
    ...normalizer,
    eosGap: ppo.eosGap ? { eosId: run.tokenizer.info.eosId, padId: run.tokenizer.info.padId } : null,
  });
  const importance = importanceOf(ppo);
  const proximal = new ProximalPolicy(run);
  let made: { readonly iteration: number; readonly byId: ReadonlyMap<string, Experience> } | undefined;
  const experiencesOf = async (iteration: number, klCoef: number) => {
    if (made?.iteration === iteration) return made.byId;
    const ids = host.experienceIdsOf(iteration);
    const sampled = await run.store.getAll(ids);
    const rollouts = importance === null ? sampled : await proximal.recall(iteration, sampled);
    let all: Experience[] = [];
    for (const batch of intoBatches(rollouts, ppo.generationBatches))
      all = all.concat(await inSlices(makingExperience(batch, { ...experienceOptions(), klCoef })));
    made = { iteration, byId: new Map(all.map((experience) => [experience.experienceId, experience])) };
    return made.byId;
  };
  const ptxRows = (step: number, count: number) => {
    const rows = run.data.sft.train;
    if (ppo.ptx === null) return [];
    const order = shuffled(rows, {
      seed: config.seed,
      iteration: Math.floor(((step - 1) * count) / rows.length),
      epoch: -1,
    });
    return Array.from({ length: count }, (_, i) => order[((step - 1) * count + i) % order.length]);
  };
  const materialize = async (ids: readonly string[], input: JsonValue, step: number): Promise<StepInputs> => {
    const { iteration, klCoef } = input as { iteration: number; klCoef: number };
    await scoresMeasured.promise;
    const byId = await experiencesOf(iteration, klCoef);
    const rows = ids.map((id) => byId.get(id) as Experience);
    const shardCount = shardCountOf(rows.length, config.cluster.microShards);
    const parts = cutMicroShards(rows, shardCount, (row) => row.promptIds.length + row.responseIds.length);
    const ptx = ptxRows(step, rows.length);
    const ptxParts = ptx.length === 0 ? undefined : cutMicroShards(ptx, shardCount, (row) => row.ids.length);
    const shards = parts.map((part, index): MicroShard => ({
      index,
      rows: { kind: "ppo", rows: part, ...(ptxParts ? { ptx: ptxParts[index] } : {}) },
    }));
    return {
      shards,
      experienceIds: parts.map((part) => part.map(({ experienceId }) => experienceId)),
      denominator: countedResponseTokens(rows),
      ptxDenominator: countedLanguageTokens(ptx),
      learningRates: learningRates(step),
    };
  };
  learners.startStage({
    stage: "ppo",
    models: [actor, critic],
    tokenizer: run.tokens,
    materialize,
    checkpointState: (checkpointId) => checkpointer.stateOf(checkpointId),
  });

  // ── weights by version ───────────────────────────────────────────────────────────────────────────────────────────
  const publish = async (policyVersion: number) => {
    const items = ["actor", "critic"].map((role) => ({
      what: `${hasAdapters(config) ? "adapter" : "model"}:${role}`,
      artifactName: `${role}/${policyVersion}`,
    }));
    const { artifacts: refs } = await learners.publish(items, signal, { isFingerprinted: false });
    host.dispatch({ type: "VersionPublished", policyVersion, sha256: refs[0].sha256 });
    metrics.policyVersion.set(policyVersion);
    for (const role of ["actor", "critic"])
      await artifacts.remove(`${role}/${policyVersion - versionsKept - 1}`);
  };

  // ── where to start ───────────────────────────────────────────────────────────────────────────────────────────────
  const resumed = host.state.durable.stage === "ppo" ? (host.state.durable.resume as LoopState | null) : null;
  const start: LoopState = resumed ?? {
    iteration: 0,
    policyVersion: 0,
    klController: startKlController(klOptions(ppo.klController)),
    promptCursor: 0,
    optimizerSteps: 0,
    isKlBudgetSpent: false,
  };
  bus.publish({
    type: "stage-started",
    stage: "ppo",
    unit: "iteration",
    totalUnits: ppo.iterations,
    completedUnits: start.iteration,
  });
  const source = new PromptSource(run.data.ppo.train, config.seed);

  // After a restart the weights are still on disk, while the learners may already be further.
  const published = host.state.durable.policyVersion;
  for (let version = Math.max(0, start.policyVersion - versionsKept); version <= published; version++) {
    for (const name of [`actor/${version}`, `critic/${version}`]) {
      if (!(await artifacts.recover(name)) && version >= start.policyVersion)
        throw storageError(`${name} was published, but its file is gone: the run directory is damaged`);
    }
  }
  if (published < start.policyVersion) await publish(start.policyVersion);
  const before = await checkpointer.remember("ppo.before", () =>
    evaluatePolicy(run, "before", start.policyVersion, brief),
  );
  if (ppo.normalizeScores && before.scores.length > 1) normalizer = fitScoreNormalizer(before.scores);
  scoresMeasured.resolve();

  let collectSeconds = 0;
  let collected: readonly ScoredRollout[] = [];
  let trainedVersion = start.policyVersion;
  const droppedCount = () => ledgerOf(host.state.durable.counts).dropped;
  let droppedBefore = droppedCount();
  const troupe: Troupe = {
    nextPrompts(iteration, cursor) {
      const size = run.data.ppo.train.length;
      source.seek({ epoch: Math.floor(cursor / size), offset: cursor % size });
      const count = ppo.rolloutBatchSize * ppo.generationBatches;
      const rows = source.next(count);
      // Numbered by place in the iteration: a small split may draw the same prompt twice.
      const prompts = rows.flatMap(({ promptIds }, promptIndex) =>
        Array.from({ length: ppo.samplesPerPrompt }, (_, sampleIndex): Prompt => {
          return {
            promptIndex,
            sampleIndex,
            experienceId: `${iteration}/${promptIndex}/${sampleIndex}`,
            promptIds,
          };
        }),
      );
      host.dispatch({ type: "IterationStarted", iteration, promptCursor: cursor });
      return { prompts, nextCursor: cursor + count };
    },
    ask(iteration, prompts, oldestVersion) {
      dispatcher.ask(iteration, prompts, oldestVersion, brief);
    },
    async perform(iteration, prompts, oldestVersion) {
      const startedMs = performance.now();
      droppedBefore = droppedCount();
      metrics.iteration.set(iteration);
      const rollouts = await dispatcher.collect(iteration, prompts, oldestVersion, brief, signal);
      if (iteration === 0) {
        const offset = checkPreflight.rollouts(rollouts, run.config.engine.frozenWeights);
        run.logger.info({ offset, frozen_weights: run.config.engine.frozenWeights }, "preflight offset");
      }
      collectSeconds = (performance.now() - startedMs) / 1000;
      metrics.iterationPhaseDuration.observe({ phase: "collect" }, collectSeconds);
      collected = rollouts;
      return rollouts;
    },
    async reassess({ iteration, policyVersion }, rollouts) {
      return importance === null ? rollouts : proximal.measure(iteration, policyVersion, rollouts);
    },
    async update({ iteration, policyVersion, klController, optimizerSteps }, minibatches) {
      trainedVersion = policyVersion;
      const experiences = minibatches.flat();
      made = {
        iteration,
        byId: new Map(experiences.map((experience) => [experience.experienceId, experience])),
      };
      const stats = await ppoUpdate(
        minibatches,
        async (request) => {
          const result = await learners.step(request, signal);
          if (request.step === 1) checkPreflight.firstStep(result.firstSums);
          metrics.optimizerStep.set(request.step);
          return result;
        },
        {
          iteration,
          ppoEpochs: ppo.ppoEpochs,
          seed: config.seed,
          stepsBefore: optimizerSteps,
          rounds: learners.averagesParameters
            ? {
                every: learners.minibatchesPerStep,
                minibatchesBefore: iteration * ppo.ppoEpochs * minibatchesPerIteration,
              }
            : null,
          klCoef: klController.coef,
          shardCountOf: (rows) => shardCountOf(rows, config.cluster.microShards),
        },
      );
      metrics.iterationPhaseDuration.observe({ phase: "update" }, stats.elapsedMs / 1000);
      await inSlices(observingStaleness(metrics, policyVersion, experiences));
      return stats;
    },
    async publish(policyVersion) {
      const startedMs = performance.now();
      await publish(policyVersion);
      metrics.iterationPhaseDuration.observe({ phase: "publish" }, (performance.now() - startedMs) / 1000);
    },
    async commit(state) {
      const resume = state as unknown as JsonValue;
      run.store.release(host.experienceIdsOf(state.iteration - 1));
      host.dispatch({
        type: "IterationCommitted",
        iteration: state.iteration - 1,
        promptCursor: state.promptCursor,
        resume,
      });
      const { everyIterations } = config.checkpoint;
      if (
        everyIterations > 0 &&
        state.iteration % everyIterations === 0 &&
        state.iteration < ppo.iterations
      ) {
        const isSaved = await checkpointer.save({
          stage: "ppo",
          step: state.optimizerSteps,
          completedUnits: state.iteration,
          resume,
          model: models.policy,
          role: "actor",
          head: "lm",
        });
        if (isSaved) await proximal.prune();
      }
    },
    report(iteration, experience, update, klCoef) {
      reportIteration(run, {
        iteration,
        experience,
        update,
        policyVersion: trainedVersion,
        klCoef,
        collectSeconds,
        isAsynchronous: ppo.staleness > 0,
        rollouts: collected,
        dropped: droppedCount() - droppedBefore,
        learningRates: learningRates((iteration + 1) * ppo.ppoEpochs * minibatchesPerIteration),
      });
    },
  };
  const end = await trainLoop(
    troupe,
    {
      iterations: ppo.iterations,
      staleness: ppo.staleness,
      generationBatches: ppo.generationBatches,
      minibatchSize: ppo.minibatchSize,
      klBudget: ppo.klBudget,
      experience: experienceOptions(),
    },
    start,
  );
  // What was collected for iterations that the KL budget cut off would keep the rollout workers from the evaluation.
  if (end.isKlBudgetSpent) host.dispatch({ type: "CollectionsCancelled" });

  const after = await evaluatePolicy(run, "after", end.policyVersion, brief);
  const finals = [
    { what: "model:actor", artifactName: "ppo/actor" },
    { what: "model:critic", artifactName: "ppo/critic" },
    ...(ppo.ema === null ? [] : [{ what: "ema:actor", artifactName: "ppo/actor-ema" }]),
    ...(hasAdapters(config) ? [{ what: "adapter:actor", artifactName: "ppo/adapter" }] : []),
  ];
  const { stateSha256 } = await learners.publish(finals, signal);
  await run.models.save("ppo", models.policy, "lm", artifacts.get("ppo/actor").localPath);
  await run.models.save("ppo-critic", models.reward, "scalar", artifacts.get("ppo/critic").localPath);
  if (hasAdapters(config)) await run.models.saveAdapter("ppo", artifacts.get("ppo/adapter").localPath);
  if (ppo.ema !== null)
    await run.models.save("ppo-ema", models.policy, "lm", artifacts.get("ppo/actor-ema").localPath);
  bus.publish({
    type: "stage-finished",
    stage: "ppo",
    elapsedMs: performance.now() - startedMs,
    metrics:
      after.scores.length === 0 ? {} : { "objective/scores": after.meanScore, "objective/kl": after.klToRef },
  });
  return {
    before,
    after,
    iterations: end.iteration,
    stoppedByKlBudget: end.isKlBudgetSpent,
    stateSha256,
  };
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

function klOptions(controller: RunContext["config"]["ppo"]["klController"]) {
  return controller.type === "fixed" ? { type: "fixed" as const, coef: controller.coef } : controller;
}
