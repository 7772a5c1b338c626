/** Stage 3, PPO: sets the learners up, measures the policy before and after the train loop, saves the result. */
import { hasAdapters } from "../coordinator/model-folders.js";
import type { PerformanceBrief } from "../coordinator/dispatcher.js";
import { trainLoop, type LoopState } from "../coordinator/train-loop.js";
import { startKlController } from "../rl/kl-controller.js";
import { fitScoreNormalizer } from "../rl/score-normalizer.js";
import { evaluatePolicy, type PolicyEvaluation } from "./evaluate-policy.js";
import { PolicyVersions, type PpoModels } from "./policy-versions.js";
import { PpoMinibatches } from "./ppo-minibatches.js";
import { PpoSchedule } from "./ppo-schedule.js";
import { PpoTroupe } from "./ppo-troupe.js";
import { ProximalPolicy } from "./proximal-policy.js";
import type { RunContext } from "./run-context.js";
import { ppoShapes } from "./run-shapes.js";

export interface PpoResult {
  readonly before: PolicyEvaluation;
  readonly after: PolicyEvaluation;
  readonly iterations: number;
  readonly stoppedByKlBudget: boolean;
  readonly stateSha256: string;
}

export async function runPpoStage(run: RunContext, models: PpoModels): Promise<PpoResult> {
  const { config, host, learners, checkpointer, bus } = run;
  const { ppo } = config;
  const startedMs = performance.now();
  const versions = new PolicyVersions(run, models);
  const schedule = new PpoSchedule(ppo);
  const proximal = new ProximalPolicy(run);
  const minibatches = new PpoMinibatches(run, schedule, proximal);
  const brief: PerformanceBrief = {
    models: (policyVersion) => versions.replicas(policyVersion),
    tokenizer: run.tokens,
    sampling: { seed: config.seed, ...config.generation, greedy: false },
    score: true,
    vocabularySize: versions.vocabularySize,
    stops: run.stops,
  };
  const runShapes = await ppoShapes(run, models);
  learners.startStage({
    stage: "ppo",
    runShapes,
    models: versions.trained,
    tokenizer: run.tokens,
    materialize: (...manifest) => minibatches.materialize(...manifest),
    checkpointState: (checkpointId) => checkpointer.stateOf(checkpointId),
  });

  const start = startOf(run);
  bus.publish({
    type: "stage-started",
    stage: "ppo",
    unit: "iteration",
    totalUnits: ppo.iterations,
    completedUnits: start.iteration,
  });
  await versions.recover(start.policyVersion);
  const before = await run.results.remember("ppo.before", () =>
    evaluatePolicy(run, "before", start.policyVersion, brief),
  );
  const scores = before.scores.filter((score) => score !== null);
  const canNormalize = ppo.normalizeScores && scores.length > 1;
  minibatches.normalizeScores(canNormalize ? fitScoreNormalizer(scores) : null);

  const troupe = new PpoTroupe(run, { models, brief, versions, minibatches, schedule, proximal });
  const { iterations, staleness, generationBatches, minibatchSize, klBudget } = ppo;
  const experience = minibatches.experienceOptions();
  const end = await trainLoop(
    troupe,
    { iterations, staleness, generationBatches, minibatchSize, klBudget, experience },
    start,
  );
  // What was collected for iterations that the KL budget cut off would keep the rollout workers from the evaluation.
  if (end.isKlBudgetSpent) host.dispatch({ type: "CollectionsCancelled" });

  const after = await evaluatePolicy(run, "after", end.policyVersion, brief);
  const stateSha256 = await saveModels(run, models);
  const hasScores = after.scores.length > 0;
  bus.publish({
    type: "stage-finished",
    stage: "ppo",
    elapsedMs: performance.now() - startedMs,
    metrics: hasScores ? { "objective/scores": after.meanScore, "objective/kl": after.klToRef } : {},
  });
  return {
    before,
    after,
    iterations: end.iteration,
    stoppedByKlBudget: end.isKlBudgetSpent,
    stateSha256,
  };
}

/** Where the loop of an earlier coordinator stood, or the beginning. */
function startOf({ config, host }: RunContext): LoopState {
  const { stage, resume } = host.state.durable;
  if (stage === "ppo" && resume !== null) return resume as unknown as LoopState;
  return {
    iteration: 0,
    policyVersion: 0,
    klController: startKlController(config.ppo.klController),
    promptCursor: 0,
    optimizerSteps: 0,
    isKlBudgetSpent: false,
  };
}

/** @returns SHA-256 of parameters and optimizer state */
async function saveModels(
  { config, learners, artifacts, models: folders, signal }: RunContext,
  { policy, reward }: PpoModels,
): Promise<string> {
  const hasEma = config.ppo.ema !== null;
  const { stateSha256 } = await learners.publish(
    [
      { what: "model:actor", artifactName: "ppo/actor" },
      { what: "model:critic", artifactName: "ppo/critic" },
      ...(hasEma ? [{ what: "ema:actor", artifactName: "ppo/actor-ema" }] : []),
      ...(hasAdapters(config) ? [{ what: "adapter:actor", artifactName: "ppo/adapter" }] : []),
    ],
    signal,
  );
  const fileOf = (name: string) => artifacts.get(name).localPath;
  await folders.save("ppo", policy, "lm", fileOf("ppo/actor"));
  await folders.save("ppo-critic", reward, "scalar", fileOf("ppo/critic"));
  if (hasAdapters(config)) await folders.saveAdapter("ppo", policy, fileOf("ppo/adapter"));
  if (hasEma) await folders.save("ppo-ema", policy, "lm", fileOf("ppo/actor-ema"));
  return stateSha256;
}
