import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Engine, Program } from "../../../src/engine/engine.js";
import { createOnnxEngine } from "../../../src/engine/onnx/onnx-engine.js";
import { createReferenceEngine } from "../../../src/engine/reference.js";
import { LearnerCompute, type LearnerSettings } from "../../../src/learner/learner-compute.js";
import { denominatorOf, type ShardRows } from "../../../src/learner/shards.js";
import { TreeSum } from "../../../src/learner/tree-sum.js";
import { dropoutScale, keyShape, tokenKeys } from "../../../src/models/lora-dropout.js";
import { pairs, rewardSettings, sftRows, sftSettings, shardsOf } from "../learner/fixtures.js";

const [tokens, inputs] = [600, 48];

const scaleProgram = (rate: number, module: string): Program => ({
  key: `scale ${rate} ${module}`,
  arenas: {},
  inputs: { keys: { shape: keyShape(tokens), dtype: "float32" } },
  body: (_arenas, { keys }) => ({ outputs: { scale: dropoutScale({ rate, keys }, module, inputs) } }),
});
async function scaleOn(engine: Engine, rate: number, { module = "h.0.c_fc", place = "sft/1/0/0" } = {}) {
  const executable = await engine.compile(scaleProgram(rate, module));
  return (await executable.run({}, { keys: tokenKeys(5, place, tokens) })).scale as Float32Array;
}

let engine: Engine;
beforeAll(async () => {
  engine = await createOnnxEngine({ threads: 1 });
});
afterAll(() => engine.dispose());

const correlation = (a: number[], b: number[]) => {
  const mean = (values: number[]) => values.reduce((sum, x) => sum + x, 0) / values.length;
  const [ma, mb] = [mean(a), mean(b)];
  const covariance = (x: number[], mx: number, y: number[], my: number) =>
    mean(x.map((value, i) => (value - mx) * (y[i] - my)));
  return covariance(a, ma, b, mb) / Math.sqrt(covariance(a, ma, a, ma) * covariance(b, mb, b, mb));
};

describe("dropout of adapter inputs", () => {
  it.each([0.05, 0.3, 0.5])("drops a share of %d and scales up the rest", async (rate) => {
    const scale = await scaleOn(engine, rate);
    const kept = scale.filter((x) => x > 0);
    expect(1 - kept.length / scale.length).toBeCloseTo(rate, 1.7);
    for (const x of kept) expect(x).toBeCloseTo(1 / (1 - rate), 2);
    expect(scale.reduce((sum, x) => sum + x, 0) / scale.length).toBeCloseTo(1, 1.5);
  });

  it("drops features, tokens and modules independently of each other", async () => {
    const scale = await scaleOn(engine, 0.5);
    const other = await scaleOn(engine, 0.5, { module: "h.1.c_fc" });
    const feature = (of: ArrayLike<number>, i: number) =>
      Array.from({ length: tokens }, (_, n) => of[n * inputs + i]);
    const columns = Array.from({ length: inputs }, (_, i) => feature(scale, i));
    let worst = 0;
    for (let i = 0; i < inputs; i++) {
      for (let j = 0; j < i; j++) worst = Math.max(worst, Math.abs(correlation(columns[i], columns[j])));
      for (let j = 0; j < inputs; j++)
        worst = Math.max(worst, Math.abs(correlation(columns[i], feature(other, j))));
      worst = Math.max(worst, Math.abs(correlation(columns[i].slice(1), columns[i].slice(0, -1))));
    }
    expect(worst).toBeLessThan(5 / Math.sqrt(tokens)); // five standard deviations, among some 3,500 pairs
  });

  it("gives the same bits on every engine, and other ones at another place", async () => {
    const reference = createReferenceEngine();
    const scale = await scaleOn(engine, 0.3);
    expect(await scaleOn(reference, 0.3)).toEqual(scale);
    expect(await scaleOn(engine, 0.3, { place: "sft/2/0/0" })).not.toEqual(scale);
    await reference.dispose();
  });
});

describe("training with it", () => {
  const withDropout = (settings: LearnerSettings, dropout: number): LearnerSettings => ({
    ...settings,
    microBatchTokens: 64,
    lora: { rank: 2, alpha: 8, targetModules: ["all-linear"], onlyOptimizeLora: true, dropout },
    models: settings.models.map((model) => ({
      ...model,
      hfConfigJson: JSON.stringify({ ...JSON.parse(model.hfConfigJson), initializer_range: 0.5 }),
    })),
  });

  async function gradient(
    learner: LearnerCompute,
    rows: ShardRows,
    shardCount: number,
    cuts: readonly number[],
  ) {
    const shards = shardsOf(rows, shardCount);
    const tree = new TreeSum();
    const edges = [0, ...cuts, shardCount];
    for (let i = 0; i + 1 < edges.length; i++) {
      const { nodes } = await learner.computeShards({
        shards: shards.slice(edges[i], edges[i + 1]),
        shardCount,
        denominators: { main: denominatorOf(rows), ptx: 0 },
      });
      for (const { level, index, gradients } of nodes) tree.push({ level, index, values: gradients });
    }
    return tree.total(shardCount).slice(); // a learner uses its memory again
  }

  it.each<[string, LearnerSettings, ShardRows]>([
    ["sft", sftSettings, { kind: "sft", rows: sftRows(8) }],
    ["reward", rewardSettings("end-score"), { kind: "reward", rows: pairs(8) }],
  ])(
    "%s: one learner and three make the same gradient, with recomputed layers too",
    async (_, settings, rows) => {
      const open = (dropout: number, more: Partial<LearnerSettings> = {}) =>
        LearnerCompute.open({ ...withDropout(settings, dropout), ...more } as LearnerSettings);
      const [learner, recomputing, plain] = [
        await open(0.2),
        await open(0.2, { recompute: "layers" }),
        await open(0),
      ];
      const one = await gradient(learner, rows, 4, []);
      expect(await gradient(learner, rows, 4, [1, 2])).toEqual(one);
      expect(await gradient(recomputing, rows, 4, [3])).toEqual(one);
      expect(await gradient(plain, rows, 4, [])).not.toEqual(one);

      await learner.applyGradients({ gradients: one.slice(), learningRates: { model: 0 }, optimizerStep: 1 });
      expect(await gradient(learner, rows, 4, [])).not.toEqual(one); // the same weights, another step
      for (const each of [learner, recomputing, plain]) await each.close();
    },
  );
});
