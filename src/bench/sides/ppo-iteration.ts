/**
 * A whole PPO iteration in one process, with what rollout workers, coordinator and learners call: generate, score,
 * rewards and advantages, one pass of clipped updates over the minibatches, new weights through a file to the actor
 * and critic that generate. No other process, no network, no journal.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { LearnerCompute } from "../../learner/learner-compute.js";
import { makeExperience } from "../../rl/make-experience.js";
import { MiniDataset } from "../../rl/mini-dataset.js";
import { IDENTITY_SCORE_NORMALIZER } from "../../rl/score-normalizer.js";
import type { Experience, ScoredRollout } from "../../rl/types.js";
import { MAX_SLOTS } from "../../rollout/generator.js";
import { ROLES } from "../../rollout/replica-weights.js";
import { RolloutCompute } from "../../rollout/rollout-compute.js";
import { cutMicroShards } from "../../stages/micro-shards.js";
import { BENCH_OPTIMIZER, BENCH_PPO_HYPER, benchConfigJson, benchIds } from "./bench-model.js";
import type { ModelShape, Side } from "./side.js";

export interface PpoIterationConfig extends ModelShape {
  readonly threads: number;
  /** Prompts of an iteration. */
  readonly batch: number;
  readonly minibatch: number;
  readonly microShards: number;
  readonly promptTokens: number;
  readonly responseTokens: number;
}

const ACTOR_LEARNING_RATE = 1e-5;
const KL_COEF = 0.05;

export async function open(config: PpoIterationConfig): Promise<Side> {
  const { batch, minibatch, microShards, promptTokens, responseTokens, vocabulary, threads } = config;
  const engine = { name: "onnx", threads } as const;
  const hfConfigJson = { lm: benchConfigJson(config, "lm"), scalar: benchConfigJson(config, "scalar") };
  const folder = mkdtempSync(join(tmpdir(), "troupe-bench-"));
  const fileOf = (role: string) => join(folder, `${role}.safetensors`);
  const learner = await LearnerCompute.open({
    stage: "ppo",
    hyper: BENCH_PPO_HYPER,
    engine,
    padId: 1,
    models: [
      { role: "actor", head: "lm", initSeed: 1, hfConfigJson: hfConfigJson.lm, file: null },
      { role: "critic", head: "scalar", initSeed: 2, hfConfigJson: hfConfigJson.scalar, file: null },
    ],
    optimizers: { actor: BENCH_OPTIMIZER, critic: BENCH_OPTIMIZER },
  });
  const rollout = await RolloutCompute.open({
    engine,
    models: ROLES.map((role) => {
      const head = role === "actor" || role === "ref" ? "lm" : "scalar";
      return { role, head, hfConfigJson: hfConfigJson[head] };
    }),
    eosIds: [],
    slots: Math.min(MAX_SLOTS, batch),
    maxSequenceTokens: promptTokens + responseTokens,
  });
  const publish = async () => {
    for (const role of ["actor", "critic"] as const) {
      await learner.exportModel({ role, path: fileOf(role) });
      await rollout.loadModel({ role, path: fileOf(role) });
    }
  };
  await publish();
  await rollout.loadModel({ role: "ref", path: fileOf("actor") });
  await rollout.loadModel({ role: "reward", path: fileOf("critic") });

  const sampling = {
    seed: 1,
    temperature: 1,
    topK: 0,
    topP: 1,
    minNewTokens: responseTokens,
    maxNewTokens: responseTokens,
    repetitionPenalty: 1,
    greedy: false,
  };
  let iteration = 0;
  let optimizerStep = 0;

  const update = async (minibatches: readonly Experience[][]) => {
    for (const rows of minibatches) {
      const parts = cutMicroShards(rows, microShards, (row) => row.promptIds.length + row.responseIds.length);
      const { nodes } = await learner.computeShards({
        shards: parts.map((part, index) => ({ index, rows: { kind: "ppo", rows: part } })),
        shardCount: microShards,
        denominators: { main: rows.length * responseTokens, ptx: 0 },
      });
      optimizerStep++;
      await learner.applyGradients({
        gradients: nodes[0].gradients,
        learningRates: { actor: ACTOR_LEARNING_RATE, critic: ACTOR_LEARNING_RATE },
        optimizerStep,
      });
    }
  };

  const repeat = async (): Promise<number> => {
    const prompts = Array.from({ length: batch }, (_, promptIndex) => ({
      promptIndex,
      sampleIndex: 0,
      experienceId: `${iteration}/${promptIndex}/0`,
      promptIds: benchIds(promptTokens, vocabulary, promptIndex + 1),
    }));
    const { rollouts } = await rollout.perform({
      prompts,
      policyVersion: iteration,
      sampling,
      needs: { score: true },
    });
    const experiences = makeExperience(rollouts as ScoredRollout[], {
      klCoef: KL_COEF,
      clipRewardValue: 5,
      gamma: 1,
      lam: 0.95,
      whitenAdvantages: true,
      missingEosPenalty: 0,
      ...IDENTITY_SCORE_NORMALIZER,
      eosGap: null,
    });
    await update(new MiniDataset<Experience>(1, minibatch).add(experiences)!);
    await publish();
    iteration++;
    return 1;
  };
  return {
    repeat,
    close: async () => {
      await learner.close();
      await rollout.close();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}
