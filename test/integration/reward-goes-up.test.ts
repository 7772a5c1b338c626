/**
 * The whole PPO path in one process: generate, score, make experience, actor and critic gradients, AdamW, new weights
 * back to the generator. The score is a rule (share of one token), so that nothing but PPO can raise it.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { LearnerCompute } from "../../src/learner/learner-compute.js";
import { freshGpt2Spec, toHfConfig } from "../../src/models/model-spec.js";
import { makeExperience } from "../../src/rl/make-experience.js";
import type { Prompt, ScoredRollout } from "../../src/rl/types.js";
import { RolloutCompute } from "../../src/rollout/rollout-compute.js";
import { cutMicroShards } from "../../src/stages/micro-shards.js";

const LIKED = 7;
const SEED = 3;
const ITERATIONS = 16;
const BATCH = 32;
const SHARDS = 4;

const folder = mkdtempSync(join(tmpdir(), "troupe-ppo-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const spec = freshGpt2Spec({
  head: "lm",
  layers: 1,
  hidden: 16,
  heads: 2,
  contextTokens: 16,
  vocabularySize: 12,
  eosTokenId: 0,
  padTokenId: 1,
});
const hfConfigJson = JSON.stringify(toHfConfig(spec));
const file = (role: string) => join(folder, `${role}.safetensors`);

const promptsOf = (iteration: number): Prompt[] =>
  Array.from({ length: BATCH }, (_, i) => ({
    promptIndex: i,
    sampleIndex: 0,
    experienceId: `${iteration}/${i}/0`,
    promptIds: Int32Array.of(2 + (i % 5), 3),
  }));

const shareOfLiked = ({ responseIds }: ScoredRollout): number =>
  responseIds.filter((id) => id === LIKED).length / responseIds.length;

test("ppo raises the share of the rewarded token, and nothing else moves the first ratio", async () => {
  const optimizer = { beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0, clipNorm: 1 };
  const learner = await LearnerCompute.open({
    stage: "ppo",
    engine: { name: "onnx" },
    padId: 1,
    models: [
      { role: "actor", hfConfigJson, head: "lm", file: null, initSeed: 1 },
      { role: "critic", hfConfigJson, head: "scalar", file: null, initSeed: 2 },
    ],
    optimizers: { actor: optimizer, critic: optimizer },
    hyper: {
      cliprange: 0.2,
      cliprangeValue: 0.2,
      temperature: 1,
      ptxCoef: 0,
      emaDecay: null,
      lossDenominator: "global-tokens",
    },
  });
  const rollout = await RolloutCompute.open({
    engine: { name: "onnx" },
    models: [
      { role: "actor", hfConfigJson, head: "lm" },
      { role: "ref", hfConfigJson, head: "lm" },
      { role: "critic", hfConfigJson, head: "scalar" },
      { role: "reward", hfConfigJson, head: "scalar" },
    ],
    eosIds: [0],
    slots: 16,
  });
  try {
    await learner.exportModel({ role: "actor", path: file("ref") });
    await learner.exportModel({ role: "critic", path: file("reward") });
    await rollout.loadModel({ role: "ref", path: file("ref") });
    await rollout.loadModel({ role: "reward", path: file("reward") });
    const shares: number[] = [];
    for (let iteration = 0; iteration < ITERATIONS; iteration++) {
      for (const role of ["actor", "critic"] as const) {
        await learner.exportModel({ role, path: file(role) });
        await rollout.loadModel({ role, path: file(role) });
      }
      const { rollouts } = await rollout.perform({
        prompts: promptsOf(iteration),
        policyVersion: iteration,
        sampling: {
          seed: SEED,
          temperature: 1,
          topK: 0,
          topP: 1,
          minNewTokens: 0,
          maxNewTokens: 8,
          repetitionPenalty: 1,
          greedy: false,
        },
        needs: { score: true },
      });
      const scored = (rollouts as ScoredRollout[]).map((one) => ({ ...one, score: shareOfLiked(one) * 4 }));
      shares.push(scored.reduce((sum, one) => sum + shareOfLiked(one), 0) / BATCH);
      const experiences = makeExperience(scored, {
        klCoef: 0.01,
        clipRewardValue: 5,
        gamma: 1,
        lam: 0.95,
        whitenAdvantages: true,
        eosGap: null,
        missingEosPenalty: 0,
        scoreShift: 0,
        scoreScale: 1,
      });
      const tokens = experiences.reduce((sum, one) => sum + one.responseIds.length, 0);
      const shards = cutMicroShards(experiences, SHARDS, (row) => row.responseIds.length);
      const { nodes, stats } = await learner.computeShards({
        shards: shards.map((rows, index) => ({ index, rows: { kind: "ppo", rows } })),
        shardCount: SHARDS,
        denominators: { main: tokens, ptx: 0 },
      });
      const sumOf = (name: string) => stats.reduce((sum, { values }) => sum + values[name], 0);
      // One optimizer step per iteration: the policy that is trained is the one that sampled.
      expect(sumOf("absLogRatioSum") / tokens).toBeLessThan(1e-4);
      expect(sumOf("clipFracSum")).toBe(0);
      if (iteration === 0) {
        const kl = Math.max(
          ...experiences.flatMap((one) =>
            Array.from(one.logprobs, (logprob, i) => Math.abs(logprob - one.refLogprobs[i])),
          ),
        );
        expect(kl).toBeLessThan(1e-4);
      }
      await learner.applyGradients({
        gradients: nodes[0].gradients,
        learningRates: { actor: 2e-2, critic: 2e-2 },
        optimizerStep: iteration + 1,
      });
    }
    const early = (shares[0] + shares[1]) / 2;
    const late = (shares[ITERATIONS - 1] + shares[ITERATIONS - 2]) / 2;
    expect(early).toBeLessThan(0.25); // about 1 in 12 tokens by chance
    expect(late).toBeGreaterThan(early + 0.4);
  } finally {
    await rollout.close();
  }
}, 120_000);
