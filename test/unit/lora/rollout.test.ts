import { mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createEngine } from "../../../src/engine/create-engine.js";
import { writeAdapterFile } from "../../../src/models/lora-files.js";
import {
  frozenLayout,
  mergedWeights,
  splitWeights,
  trainedLayout,
  withLora,
} from "../../../src/models/lora.js";
import {
  freshGpt2Spec,
  layoutOf,
  toHfConfig,
  type Head,
  type ModelSpec,
} from "../../../src/models/model-spec.js";
import type { Prompt, ScoredRollout } from "../../../src/rl/types.js";
import { Generator } from "../../../src/rollout/generator.js";
import type { Role } from "../../../src/rollout/replica-weights.js";
import { RolloutCompute, type RolloutSettings } from "../../../src/rollout/rollout-compute.js";
import { writeSafetensors } from "../../../src/shared/safetensors.js";
import { fillNormal, streamOf } from "../../../src/shared/rng.js";
import { SAMPLING, tinyParams, tinyPrompts, tinySpec } from "../rollout/tiny-models.js";

const LORA = { rank: 2, alpha: 6, targetModules: ["all-linear"], onlyOptimizeLora: true };
const HEADS: Readonly<Record<Role, Head>> = { actor: "lm", ref: "lm", reward: "scalar", critic: "scalar" };
const roles = Object.keys(HEADS) as Role[];

const prompts: Prompt[] = tinyPrompts(20).map(({ key, promptIds }, promptIndex) => ({
  promptIndex,
  sampleIndex: 0,
  experienceId: key,
  promptIds,
}));
const task = {
  prompts,
  policyVersion: 1,
  sampling: { ...SAMPLING, temperature: 0.9 },
  needs: { score: true },
};

const folder = mkdtempSync(join(tmpdir(), "troupe-lora-rollout-"));
const file = (name: string) => join(folder, `${name}.safetensors`);
afterAll(() => rmSync(folder, { recursive: true }));

/** Adapters (and, of a scalar head, another head) of a version; fresh ones change nothing. */
function version(plain: ModelSpec, seed: number, name: string, isFresh = false) {
  const spec = withLora(plain, LORA);
  const weights = splitWeights(spec, tinyParams(plain, plain.head === "lm" ? 1 : 2), 3);
  for (const { name: tensor, offset, size } of trainedLayout(spec).entries) {
    const values = weights.trained.subarray(offset, offset + size);
    if (!isFresh) fillNormal(values, 0.3, seed, streamOf(tensor));
  }
  return { spec, weights, write: () => writeAdapterFile(file(name), spec, weights.trained) };
}

beforeAll(async () => {
  const [lm, scalar] = [tinySpec("lm"), tinySpec("scalar")];
  await writeSafetensors(file("policy"), layoutOf(lm).entries, tinyParams(lm, 1));
  await writeSafetensors(file("judge"), layoutOf(scalar).entries, tinyParams(scalar, 2));
  for (const [role, plain] of [["actor", lm] as const, ["critic", scalar] as const]) {
    await version(plain, 0, `${role}-fresh`, true).write();
    const { spec, weights, write } = version(plain, 5, `${role}-1`);
    await write();
    await writeSafetensors(file(`${role}-merged`), layoutOf(plain).entries, mergedWeights(spec, weights));
  }
});

const modelOf = (role: Role) => ({
  role,
  head: HEADS[role],
  hfConfigJson: JSON.stringify(toHfConfig(tinySpec(HEADS[role]))),
});
const common = { engine: { name: "onnx", threads: 1 }, eosIds: [1], maxSequenceTokens: 48 } as const;

async function openSharing(settings: Partial<RolloutSettings> = {}): Promise<RolloutCompute> {
  const compute = await RolloutCompute.open({
    ...common,
    slots: 4,
    models: roles.map((role) => ({
      ...modelOf(role),
      base: HEADS[role] === "lm" ? "policy" : "judge",
      lora: role === "actor" || role === "critic" ? LORA : null,
    })),
    ...settings,
  });
  await compute.loadModel({ role: "ref", path: file("policy") });
  await compute.loadModel({ role: "reward", path: file("judge") });
  return compute;
}

async function bring(compute: RolloutCompute, name: string): Promise<void> {
  for (const role of ["actor", "critic"] as const)
    await compute.loadModel({ role, path: file(`${role}-${name}`) });
}

async function performed(compute: RolloutCompute, part: Partial<typeof task> = {}): Promise<ScoredRollout[]> {
  return (await compute.perform({ ...task, ...part })).rollouts as ScoredRollout[];
}

const largest = (a: ArrayLike<number>, b: ArrayLike<number>): number =>
  Array.from(a).reduce((most, value, i) => Math.max(most, Math.abs(value - b[i])), 0);

describe("a rollout worker under frozen adapters", () => {
  it("samples, values and judges as with four whole models, adapters merged", async () => {
    const sharing = await openSharing();
    await bring(sharing, "1");
    const whole = await RolloutCompute.open({ ...common, slots: 4, models: roles.map(modelOf) });
    const files = { actor: "actor-merged", ref: "policy", reward: "judge", critic: "critic-merged" };
    for (const role of roles) await whole.loadModel({ role, path: file(files[role]) });
    const [ours, theirs] = [await performed(sharing), await performed(whole)];
    ours.forEach((rollout, i) => {
      expect(rollout.responseIds).toEqual(theirs[i].responseIds);
      expect(largest(rollout.logprobs, theirs[i].logprobs)).toBeLessThan(1e-5);
      expect(largest(rollout.values, theirs[i].values)).toBeLessThan(2e-5);
      expect(rollout.refLogprobs).toEqual(theirs[i].refLogprobs);
      expect(rollout.score).toBe(theirs[i].score);
      // The adapters do something: else the comparison would say nothing.
      expect(largest(rollout.logprobs, rollout.refLogprobs)).toBeGreaterThan(0.01);
    });
    await Promise.all([sharing.close(), whole.close()]);
  });

  it("holds each base once", async () => {
    const sharing = await openSharing();
    const [lm, scalar] = [tinySpec("lm"), tinySpec("scalar")];
    const trained = [lm, scalar].map((spec) => trainedLayout(withLora(spec, LORA)).size);
    // Of two whole models, all but the adapters' own heads: the reward model's head is not the critic's.
    expect(sharing.weightBytes).toBe(
      4 * (layoutOf(lm).size + layoutOf(scalar).size + trained[0] + trained[1]),
    );
    await sharing.close();
  });

  it("starts at the reference, and a version moves actor and critic alone", async () => {
    const compute = await openSharing();
    await bring(compute, "fresh");
    const before = await performed(compute);
    for (const { logprobs, refLogprobs, values } of before) {
      expect(largest(logprobs, refLogprobs)).toBeLessThan(1e-5);
      expect(values.length).toBe(logprobs.length);
    }
    await bring(compute, "1");
    expect(await performed(compute)).not.toEqual(before);
    // Back again: whatever the base held would show by now.
    await bring(compute, "fresh");
    expect(await performed(compute)).toEqual(before);
    await compute.close();
  });

  it.each([4, 16, 40])("gives an answer the same bits among others and alone, %i slots", async (slots) => {
    const compute = await openSharing({ slots });
    await bring(compute, "1");
    const all = await performed(compute);
    expect(await performed(compute, { prompts: prompts.slice(11, 14) })).toEqual(all.slice(11, 14));
    expect(await performed(compute, { prompts: [...prompts].reverse() })).toEqual([...all].reverse());
    await compute.close();
  });

  it("gives an answer the same bits in any number of slots, where matrices are wide", async () => {
    const plain = freshGpt2Spec({
      ...{ head: "lm", layers: 1, hidden: 256, heads: 4, contextTokens: 64, vocabularySize: 40 },
      ...{ eosTokenId: 1, padTokenId: 0 },
    });
    const spec = withLora(plain, { ...LORA, rank: 3 });
    const { trained, frozen } = splitWeights(spec, tinyParams(plain, 1), 3);
    for (const { name, offset, size } of trainedLayout(spec).entries)
      fillNormal(trained.subarray(offset, offset + size), 0.02, 5, streamOf(name));
    const { engine } = await createEngine({ name: "onnx", threads: 1 });
    const weights = {
      params: engine.createArena(trainedLayout(spec), trained),
      base: engine.createArena(frozenLayout(spec)!, frozen!),
    };
    const answers = async (slots: number) => {
      const generator = new Generator({ engine, spec, slots, maxSequenceTokens: 48 });
      const made = await generator.generate(tinyPrompts(20), SAMPLING, weights);
      generator.dispose();
      return made;
    };
    const few = await answers(4);
    expect(few.some(({ responseIds }) => responseIds.length > 4)).toBe(true);
    for (const slots of [17, 40]) expect(await answers(slots), `${slots} slots`).toEqual(few);
    await engine.dispose();
  });

  it("keeps a base of its own beside int8 judges", async () => {
    const models = roles.map((role) => {
      const isAdapted = role === "actor" || role === "critic";
      const base = HEADS[role] === "lm" ? "policy" : "judge";
      return { ...modelOf(role), ...(isAdapted ? { base, lora: LORA } : {}) };
    });
    const compute = await openSharing({ models, frozenWeights: "int8" });
    await bring(compute, "1");
    await expect(compute.perform(task)).rejects.toThrow(/actor model has no weights yet/);
    await compute.loadBase({ role: "actor", path: file("policy") });
    await compute.loadBase({ role: "critic", path: file("judge") });
    const exact = await openSharing();
    await bring(exact, "1");
    const [ours, theirs] = [await performed(compute), await performed(exact)];
    ours.forEach(({ logprobs, values }, i) => {
      expect(logprobs).toEqual(theirs[i].logprobs);
      expect(values).toEqual(theirs[i].values);
    });
    await Promise.all([compute.close(), exact.close()]);
  });

  it("reads a version of adapters alone, and keeps the old one when a whole model comes", async () => {
    expect(statSync(file("actor-1")).size).toBeLessThan(0.75 * statSync(file("actor-merged")).size);
    const compute = await openSharing();
    await bring(compute, "1");
    const before = await performed(compute);
    await expect(compute.loadModel({ role: "actor", path: file("actor-merged") })).rejects.toThrow(
      /tensor .* fits no adapted module/,
    );
    expect(await performed(compute)).toEqual(before);
    await compute.close();
  });
});
