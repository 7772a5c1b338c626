import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { LearnerCompute, type LearnerSettings } from "../../../src/learner/learner-compute.js";
import { denominatorOf, type ShardRows } from "../../../src/learner/shards.js";
import { TreeSum } from "../../../src/learner/tree-sum.js";
import { initParams, layoutOf, parseModelConfig } from "../../../src/models/model-spec.js";
import { viewOf } from "../../../src/engine/layout.js";
import { SafetensorsFile } from "../../../src/shared/safetensors.js";
import { ppoRows, ppoSettings, sftRows, sftSettings, shardsOf } from "../learner/fixtures.js";

const LORA = { rank: 2, alpha: 8, targetModules: ["all-linear"], onlyOptimizeLora: true };
/** A frozen base of tiny weights could say nothing: its embedding is also its head. */
const withLora = (settings: LearnerSettings): LearnerSettings => ({
  ...settings,
  microBatchTokens: 64,
  lora: LORA,
  models: settings.models.map((model) => ({
    ...model,
    hfConfigJson: JSON.stringify({ ...JSON.parse(model.hfConfigJson), initializer_range: 0.5 }),
  })),
});
const sft: ShardRows = { kind: "sft", rows: sftRows(8) };

let folder: string;
const opened: LearnerCompute[] = [];
beforeAll(async () => void (folder = await mkdtemp(join(tmpdir(), "troupe-lora-"))));
afterAll(async () => {
  await Promise.all(opened.map((learner) => learner.close()));
  await rm(folder, { recursive: true, force: true });
});
async function open(settings: LearnerSettings): Promise<LearnerCompute> {
  const learner = await LearnerCompute.open(settings);
  opened.push(learner);
  return learner;
}

/** Sum over shard ranges that start at `cuts`, one call each, as so many learners would make it; and the loss. */
async function gradientOf(
  learner: LearnerCompute,
  rows: ShardRows,
  shardCount: number,
  cuts: readonly number[] = [],
) {
  const shards = shardsOf(rows, shardCount);
  const tree = new TreeSum();
  const edges = [0, ...cuts, shardCount];
  let loss = 0;
  for (let i = 0; i + 1 < edges.length; i++) {
    const { nodes, stats } = await learner.computeShards({
      shards: shards.slice(edges[i], edges[i + 1]),
      shardCount,
      denominators: { main: denominatorOf(rows), ptx: 0 },
    });
    for (const { level, index, gradients } of nodes) tree.push({ level, index, values: gradients });
    for (const { values } of stats) loss += values.loss ?? values.policyLoss;
  }
  return { gradients: tree.total(shardCount), loss };
}

const LR = { model: 0.02, actor: 0.02, critic: 0.02 };
async function train(learner: LearnerCompute, rows: ShardRows, from: number, to: number): Promise<number[]> {
  const losses: number[] = [];
  for (let optimizerStep = from; optimizerStep <= to; optimizerStep++) {
    const { gradients, loss } = await gradientOf(learner, rows, 2);
    await learner.applyGradients({ gradients, learningRates: LR, optimizerStep });
    losses.push(loss);
  }
  return losses;
}

async function tensorsOf(path: string): Promise<Map<string, Float32Array>> {
  const file = await SafetensorsFile.open(path);
  try {
    const tensors = new Map<string, Float32Array>();
    for (const tensor of file.header.tensors) {
      const values = new Float32Array(tensor.shape.reduce((product, dim) => product * dim, 1));
      await file.readInto(tensor, values);
      tensors.set(tensor.name, values);
    }
    return tensors;
  } finally {
    await file.close();
  }
}

describe("a learner with adapters", () => {
  it("learns: the sft loss falls, though only adapters move", async () => {
    const learner = await open(withLora(sftSettings));
    const losses = await train(learner, sft, 1, 30);
    expect(losses[29]).toBeLessThan(0.75 * losses[0]);

    const path = join(folder, "merged.safetensors");
    await learner.exportModel({ role: "model", path });
    const after = await tensorsOf(path);
    const spec = parseModelConfig(JSON.parse(withLora(sftSettings).models[0].hfConfigJson), "lm");
    const layout = layoutOf(spec);
    const before = initParams(spec, sftSettings.models[0].initSeed);
    expect([...after.keys()].sort()).toEqual(layout.entries.map(({ name }) => name));
    for (const { name, shape } of layout.entries) {
      const isAdapted = shape.length === 2 && /\.(c_attn|c_proj|c_fc)\.weight$/.test(name);
      if (isAdapted) expect(after.get(name), name).not.toEqual(viewOf(layout, before, name));
      else expect(after.get(name), name).toEqual(viewOf(layout, before, name));
    }
  });

  it("sends gradients of adapters and score heads alone", async () => {
    const plain = await open(ppoSettings());
    const learner = await open(withLora(ppoSettings()));
    // One layer of width 8: rank 2 · (8+24 + 8+8 + 8+32 + 32+8) = 256 a model, and the critic's head of 8.
    expect(learner.parameterCount).toBe(2 * 256 + 8);
    expect(plain.parameterCount).toBeGreaterThan(4 * learner.parameterCount);
  });

  it("gives the same gradient bits for one learner as for several", async () => {
    const learner = await open(withLora(ppoSettings()));
    const rows: ShardRows = { kind: "ppo", rows: ppoRows(8) };
    const one = await gradientOf(learner, rows, 4);
    for (const cuts of [[2], [1, 2, 3], [3]]) {
      expect((await gradientOf(learner, rows, 4, cuts)).gradients).toEqual(one.gradients);
    }
  });

  it("goes on from a saved state with the same bits, and the state holds adapters only", async () => {
    const settings = withLora(sftSettings);
    const whole = await open(settings);
    await train(whole, sft, 1, 3);
    const path = join(folder, "state.safetensors");
    await whole.exportState({ path, digest: "d" });
    expect(
      [...(await tensorsOf(path)).keys()].every((name) =>
        /^model\.(m|v|param)\..*\.lora_[AB]\.weight$/.test(name),
      ),
    ).toBe(true);
    await train(whole, sft, 4, 5);
    const resumed = await open(settings);
    await resumed.loadState(path);
    await train(resumed, sft, 4, 5);
    expect(await resumed.stateSha256()).toBe(await whole.stateSha256());
  });

  it("averages adapters too, and merges the average when asked for it", async () => {
    const learner = await open(withLora(ppoSettings({ emaDecay: 0.5 })));
    await train(learner, { kind: "ppo", rows: ppoRows(8) }, 1, 4);
    const [now, average] = [join(folder, "actor.safetensors"), join(folder, "ema.safetensors")];
    await learner.exportModel({ role: "actor", path: now });
    await learner.exportModel({ role: "actor", path: average, ema: true });
    const name = "transformer.h.0.attn.c_attn.weight";
    expect((await tensorsOf(now)).get(name)).not.toEqual((await tensorsOf(average)).get(name));
  });

  it("writes its adapters under PEFT's names, with their config in the file", async () => {
    const learner = await open(withLora(ppoSettings()));
    const path = join(folder, "adapter.safetensors");
    await learner.exportAdapter({ role: "critic", path });
    const names = [...(await tensorsOf(path)).keys()];
    expect(names).toContain("base_model.model.transformer.h.0.attn.c_attn.lora_A.weight");
    expect(names).toContain("base_model.model.score.weight");
    const file = await SafetensorsFile.open(path);
    await file.close();
    expect(JSON.parse(file.header.metadata.troupe_adapter_config)).toMatchObject({
      r: 2,
      task_type: "SEQ_CLS",
    });
  });
});
