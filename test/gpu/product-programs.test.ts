/** What a run computes, on every device: a learner's steps, answers and their scores, against onnx on the CPU. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { CreateEngineOptions } from "../../src/engine/create-engine.js";
import { LearnerCompute, type LearnerSettings } from "../../src/learner/learner-compute.js";
import { denominatorOf, type ShardRows } from "../../src/learner/shards.js";
import { loadModelDir } from "../../src/models/checkpoint-dir.js";
import { layoutOf, toHfConfig } from "../../src/models/model-spec.js";
import type { ScoredRollout } from "../../src/rl/types.js";
import { RolloutCompute } from "../../src/rollout/rollout-compute.js";
import { packageRoot } from "../../src/shared/paths.js";
import { SafetensorsFile, writeSafetensors } from "../../src/shared/safetensors.js";
import { relativeError } from "../unit/engine/closeness.js";
import {
  pairs,
  ppoRows,
  ppoSettings,
  rewardSettings,
  sftRows,
  sftSettings,
  shardsOf,
} from "../unit/learner/fixtures.js";
import { SAMPLING, tinyParams, tinyPrompts, tinySpec } from "../unit/rollout/tiny-models.js";
import { devices } from "./devices.js";

const CPU: CreateEngineOptions = { name: "onnx", threads: 1 };
const TOLERANCE = 1e-3;
const STEPS = 3;
const TIMEOUT_MS = 300_000;
const FAMILIES = ["gpt2", "opt-f16", "llama-sharded", "mistral", "qwen2-bf16", "qwen3"];
const LORA = { rank: 2, alpha: 4, targetModules: ["all-linear"], onlyOptimizeLora: true };

let folder: string;
beforeAll(async () => void (folder = await mkdtemp(join(tmpdir(), "troupe-device-"))));
afterAll(() => rm(folder, { recursive: true, force: true }));

const stages: readonly (readonly [string, LearnerSettings, ShardRows])[] = [
  ["sft", sftSettings, { kind: "sft", rows: sftRows(12) }],
  ["reward model", rewardSettings("end-score"), { kind: "reward", rows: pairs(12) }],
  ["ppo with a moving average", ppoSettings({ emaDecay: 0.9 }), { kind: "ppo", rows: ppoRows(12) }],
  ["sft of adapters", { ...sftSettings, lora: LORA }, { kind: "sft", rows: sftRows(12) }],
];

/** Every model, and the moving average, after `STEPS` optimizer steps. */
async function trained(
  settings: LearnerSettings,
  rows: ShardRows,
  engine: CreateEngineOptions,
): Promise<Record<string, Float32Array>> {
  const learner = await LearnerCompute.open({ ...settings, engine });
  const learningRates = { model: 0.02, actor: 0.02, critic: 0.02 };
  try {
    for (let optimizerStep = 1; optimizerStep <= STEPS; optimizerStep++) {
      const { nodes } = await learner.computeShards({
        shards: shardsOf(rows, 2),
        shardCount: 2,
        denominators: { main: denominatorOf(rows), ptx: 0 },
      });
      await learner.applyGradients({ gradients: nodes[0].gradients, learningRates, optimizerStep });
    }
    const values: Record<string, Float32Array> = {};
    for (const { role } of settings.models) {
      for (const ema of settings.stage === "ppo" && role === "actor" ? [false, true] : [false]) {
        const path = join(folder, "trained.safetensors");
        await learner.exportModel({ role, path, ema });
        const file = await SafetensorsFile.open(path);
        for (const tensor of file.header.tensors) {
          const target = new Float32Array((tensor.end - tensor.begin) / Float32Array.BYTES_PER_ELEMENT);
          await file.readInto(tensor, target);
          values[`${role} ${ema} ${tensor.name}`] = target;
        }
        await file.close();
      }
    }
    return values;
  } finally {
    await learner.close();
  }
}

/** Greedy and sampled answers with everything that is known of them. */
async function performed(engine: CreateEngineOptions): Promise<ScoredRollout[]> {
  const roles = ["actor", "ref", "critic", "reward"] as const;
  const specOf = (role: (typeof roles)[number]) =>
    tinySpec(role === "actor" || role === "ref" ? "lm" : "scalar");
  const rollout = await RolloutCompute.open({
    engine,
    models: roles.map((role) => ({
      role,
      head: specOf(role).head,
      hfConfigJson: JSON.stringify(toHfConfig(specOf(role))),
    })),
    eosIds: [],
    slots: 4,
    maxSequenceTokens: 48,
  });
  try {
    for (const [seed, role] of roles.entries()) {
      const path = join(folder, `${role}.safetensors`);
      await writeSafetensors(path, layoutOf(specOf(role)).entries, tinyParams(specOf(role), seed + 1));
      await rollout.loadModel({ role, path });
    }
    const prompts = tinyPrompts(6).map(({ key, promptIds }, promptIndex) => ({
      ...{ promptIndex, sampleIndex: 0, experienceId: key, promptIds },
    }));
    const answers: ScoredRollout[] = [];
    for (const greedy of [true, false]) {
      const task = { prompts, policyVersion: 1, sampling: { ...SAMPLING, greedy }, needs: { score: true } };
      answers.push(...((await rollout.perform(task)).rollouts as ScoredRollout[]));
    }
    return answers;
  } finally {
    await rollout.close();
  }
}

/** Logits' worth: the answers of a fixture model, greedy. */
async function answersOf(family: string, engine: CreateEngineOptions) {
  const path = join(packageRoot, "test/fixtures/models", family);
  const { spec, values } = await loadModelDir(path, "lm");
  const file = join(folder, `${family}.safetensors`);
  await writeSafetensors(file, layoutOf(spec).entries, values);
  const rollout = await RolloutCompute.open({
    engine,
    models: [{ role: "actor", head: "lm", hfConfigJson: JSON.stringify(toHfConfig(spec)) }],
    eosIds: [spec.vocabularySize - 1],
    slots: 2,
    maxSequenceTokens: Math.min(24, spec.contextTokens),
  });
  try {
    await rollout.loadModel({ role: "actor", path: file });
    const prompts = [5, 3, 8].map((length, promptIndex) => ({
      promptIndex,
      sampleIndex: 0,
      experienceId: `0/${promptIndex}/0`,
      promptIds: Int32Array.from(
        { length },
        (_, i) => 2 + ((7 * i + promptIndex) % (spec.vocabularySize - 4)),
      ),
    }));
    return await rollout.generateOnly({
      prompts,
      policyVersion: 1,
      sampling: { ...SAMPLING, greedy: true, maxNewTokens: 8 },
    });
  } finally {
    await rollout.close();
  }
}

/** Nor does the keys' bias change anything: it adds the same to all scores of a query. */
function withoutKeyBias(name: string): (values: Float32Array) => Float32Array {
  if (!name.endsWith("attn.c_attn.bias")) return (values) => values;
  return (values) => values.slice().fill(0, values.length / 3, (2 * values.length) / 3);
}

describe.each(devices)("$title", ({ engine, missing }) => {
  if (missing !== null) {
    it.skip(`computes what a run computes (skipped: ${missing})`, () => {});
    return;
  }

  it.each(stages)(
    `takes ${STEPS} optimizer steps of %s as the CPU does`,
    async (_stage, settings, rows) => {
      const expected = await trained(settings, rows, CPU);
      const actual = await trained(settings, rows, engine);
      for (const [name, values] of Object.entries(expected)) {
        // It moves both answers of a pair alike: its true gradient is 0, and what AdamW makes of rounding says nothing.
        if (settings.stage === "reward" && name.endsWith("ln_f.bias")) continue;
        const compared = withoutKeyBias(name);
        expect(relativeError(compared(actual[name]), compared(values)), name).toBeLessThanOrEqual(TOLERANCE);
      }
    },
    TIMEOUT_MS,
  );

  it(
    "answers with the CPU's tokens, log-probabilities, values and scores",
    async () => {
      const expected = await performed(CPU);
      const actual = await performed(engine);
      for (const [i, answer] of expected.entries()) {
        expect([...actual[i].responseIds]).toEqual([...answer.responseIds]);
        for (const column of ["logprobs", "refLogprobs", "values"] as const)
          expect(relativeError(actual[i][column], answer[column]), column).toBeLessThanOrEqual(TOLERANCE);
        expect(relativeError([actual[i].score], [answer.score])).toBeLessThanOrEqual(TOLERANCE);
      }
    },
    TIMEOUT_MS,
  );

  it.each(FAMILIES)(
    "writes on as %s as the CPU does",
    async (family) => {
      const [expected, actual] = [await answersOf(family, CPU), await answersOf(family, engine)];
      expect(actual.map(({ responseIds }) => [...responseIds])).toEqual(
        expected.map(({ responseIds }) => [...responseIds]),
      );
      for (const [i, { logprobs }] of expected.entries())
        expect(relativeError(actual[i].logprobs, logprobs)).toBeLessThanOrEqual(TOLERANCE);
    },
    TIMEOUT_MS,
  );
});
