import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { layoutOf, parseModelConfig, toHfConfig, type Head } from "../../../src/models/model-spec.js";
import type { Prompt, Rollout, ScoredRollout } from "../../../src/rl/types.js";
import { RolloutCompute, type Role, type RolloutSettings } from "../../../src/rollout/rollout-compute.js";
import { advancedBy, cancelTask, makeTaskSignals } from "../../../src/rollout/task-signals.js";
import { writeSafetensors } from "../../../src/shared/safetensors.js";
import { SAMPLING, tinyParams, tinyPrompts, tinySpec } from "./tiny-models.js";

const HEADS: Readonly<Record<Role, Head>> = { actor: "lm", ref: "lm", reward: "scalar", critic: "scalar" };
const SEEDS: Readonly<Record<Role, number>> = { actor: 1, ref: 1, reward: 2, critic: 3 };
const roles = Object.keys(HEADS) as Role[];

const prompts: Prompt[] = tinyPrompts(6).map(({ key, promptIds }, promptIndex) => ({
  promptIndex,
  sampleIndex: 0,
  experienceId: key,
  promptIds,
}));
const task = {
  prompts,
  policyVersion: 7,
  sampling: { ...SAMPLING, temperature: 0.9 },
  needs: { score: true },
};

const folder = mkdtempSync(join(tmpdir(), "troupe-rollout-"));
const fileOf = (role: Role) => join(folder, `${role}.safetensors`);
const settings: RolloutSettings = {
  engine: { name: "onnx", threads: 1 },
  models: roles.map((role) => ({
    role,
    head: HEADS[role],
    hfConfigJson: JSON.stringify(toHfConfig(tinySpec(HEADS[role]))),
  })),
  eosIds: [1],
  slots: 4,
  maxSequenceTokens: 48,
};

/** A cache of 16 sequences of this length has 128 GiB. */
const LONG_CONTEXT = {
  model_type: "llama",
  vocab_size: 40,
  hidden_size: 16,
  intermediate_size: 24,
  num_hidden_layers: 4,
  num_attention_heads: 2,
  max_position_embeddings: 2 ** 24,
};

async function openLoaded(): Promise<RolloutCompute> {
  const compute = await RolloutCompute.open(settings);
  for (const role of roles) await compute.loadModel({ role, path: fileOf(role) });
  return compute;
}

beforeAll(async () => {
  for (const role of roles) {
    const spec = tinySpec(HEADS[role]);
    await writeSafetensors(fileOf(role), layoutOf(spec).entries, tinyParams(spec, SEEDS[role]));
  }
  const actor = tinySpec("lm");
  await writeSafetensors(
    join(folder, "other-actor.safetensors"),
    layoutOf(actor).entries,
    tinyParams(actor, 4),
  );
  const spec = tinySpec("scalar");
  // Finite weights whose products are not.
  await writeSafetensors(
    join(folder, "huge.safetensors"),
    layoutOf(spec).entries,
    tinyParams(spec, 2).fill(3e38),
  );
});
afterAll(() => rmSync(folder, { recursive: true }));

describe("rollout compute", () => {
  it("returns scored rollouts in the prompts' order, KL to an equal reference below 1e-5 per token", async () => {
    const compute = await openLoaded();
    const { rollouts, generateMs, scoreMs } = await compute.perform(task);
    expect(rollouts.map(({ experienceId }) => experienceId)).toEqual(
      prompts.map(({ experienceId }) => experienceId),
    );
    for (const rollout of rollouts as ScoredRollout[]) {
      expect(rollout.policyVersion).toBe(7);
      const { length } = rollout.responseIds;
      expect([rollout.logprobs, rollout.refLogprobs, rollout.values].map((array) => array.length)).toEqual([
        length,
        length,
        length,
      ]);
      // actor and ref hold the same weights: two code paths, one distribution
      rollout.logprobs.forEach((value, i) =>
        expect(Math.abs(value - rollout.refLogprobs[i])).toBeLessThan(1e-5),
      );
    }
    expect(generateMs).toBeGreaterThan(0);
    expect(scoreMs).toBeGreaterThan(0);
    await compute.close();
  });

  it("answers without scores when none are needed, with the same tokens", async () => {
    const compute = await openLoaded();
    const plain = (await compute.perform({ ...task, needs: { score: false } })).rollouts;
    expect(plain.every((rollout) => !("score" in rollout))).toBe(true);
    const only = await compute.generateOnly(task);
    expect(only).toEqual(plain);
    await compute.close();
  });

  it("tells of every token and pass while it is at work, and stops at the next one when told to", async () => {
    const compute = await openLoaded();
    const signals = makeTaskSignals();
    const { rollouts } = await compute.perform({ ...task, signals });
    const tokens = rollouts.reduce((sum, { responseIds }) => sum + responseIds.length, 0);
    expect(advancedBy(signals)).toBeGreaterThan(tokens); // and at least a pass of each judge
    const stopping = makeTaskSignals();
    cancelTask(stopping);
    await expect(compute.perform({ ...task, signals: stopping })).rejects.toMatchObject({
      code: "CANCELLED",
    });
    expect(advancedBy(stopping)).toBe(0);
    expect((await compute.perform(task)).rollouts).toEqual(rollouts);
    await compute.close();
  });

  it("keeps calls in order: weights loaded during a task serve the next one, not this one", async () => {
    const compute = await openLoaded();
    const alone = { old: await compute.generateOnly(task), new: [] as Rollout[] };
    const before = compute.generateOnly(task);
    const swap = compute.loadModel({ role: "actor", path: join(folder, "other-actor.safetensors") });
    const after = compute.generateOnly(task);
    expect(await before).toEqual(alone.old);
    await swap;
    alone.new = await compute.generateOnly(task);
    expect(await after).toEqual(alone.new);
    expect(alone.new).not.toEqual(alone.old);
    await compute.close();
  });

  it("keeps the old weights when a file is bad", async () => {
    const compute = await openLoaded();
    const before = await compute.generateOnly(task);
    const cut = join(folder, "cut.safetensors");
    writeFileSync(cut, readFileSync(fileOf("critic")).subarray(0, -4));
    await expect(compute.loadModel({ role: "actor", path: cut })).rejects.toThrow(
      /cut.safetensors: file is cut off/,
    );
    expect(await compute.generateOnly(task)).toEqual(before);
    await compute.close();
  });

  it("hands on numbers that are not finite with everything else as it was: one bad prompt costs no other", async () => {
    const compute = await openLoaded();
    const good = (await compute.perform(task)).rollouts as ScoredRollout[];
    await compute.loadModel({ role: "critic", path: join(folder, "huge.safetensors") });
    const { rollouts } = await compute.perform(task);
    (rollouts as ScoredRollout[]).forEach(({ values, ...rest }, i) => {
      const { values: _, ...expected } = good[i];
      expect(rest).toEqual(expected);
      expect([...values].every((value) => Number.isFinite(value))).toBe(false);
    });
    await compute.close();
  });

  it("answers nobody in person with a model whose logits are not finite", async () => {
    const compute = await openLoaded();
    const file = join(folder, "huge-actor.safetensors");
    await writeSafetensors(file, layoutOf(tinySpec("lm")).entries, tinyParams(tinySpec("lm"), 1).fill(3e38));
    await compute.loadModel({ role: "actor", path: file });
    await expect(compute.generateOnly(task)).rejects.toThrow(/prompt 0\/0\/0: the logits hold NaN/);
    await compute.close();
  });

  it("without a length of its own, keeps a cache of what its tasks need", async () => {
    const fixed = await openLoaded();
    const growing = await RolloutCompute.open({ ...settings, maxSequenceTokens: undefined });
    await growing.loadModel({ role: "actor", path: fileOf("actor") });
    for (const count of [2, 6, 2]) {
      const some = { ...task, prompts: prompts.slice(0, count) };
      expect(await growing.generateOnly(some)).toEqual(await fixed.generateOnly(some));
    }
    await growing.close();
    await fixed.close();
  });

  it("answers with a model whose whole context would not fit memory", async () => {
    const spec = parseModelConfig(LONG_CONTEXT, "lm");
    const path = join(folder, "long.safetensors");
    await writeSafetensors(path, layoutOf(spec).entries, tinyParams(spec, 6));
    const hfConfigJson = JSON.stringify(LONG_CONTEXT);
    const compute = await RolloutCompute.open({
      ...{ ...settings, slots: 16, maxSequenceTokens: undefined },
      models: [{ role: "actor", head: "lm", hfConfigJson }],
    });
    await compute.loadModel({ role: "actor", path });
    expect(await compute.generateOnly(task)).toHaveLength(prompts.length);
    await compute.close();
  });

  it("says which model has no weights yet", async () => {
    const compute = await RolloutCompute.open(settings);
    await expect(compute.generateOnly(task)).rejects.toThrow(/the actor model has no weights yet/);
    await compute.close();
  });
});
