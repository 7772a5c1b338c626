import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { LearnerCompute, type LearnerSettings } from "../../../src/learner/learner-compute.js";
import { nesterovStep, type RoundSettings } from "../../../src/learner/parameter-round.js";
import { denominatorOf } from "../../../src/learner/shards.js";
import { SafetensorsFile } from "../../../src/shared/safetensors.js";
import { OPTIMIZER, ppoRows, ppoSettings, sftRows, sftSettings, shardsOf } from "./fixtures.js";

const PLAIN: RoundSettings = { outerLearningRate: 1, outerMomentum: 0, averageMoments: true };
const LR = { model: 0.02, actor: 0.02, critic: 0.02 };
const SHARDS = 4;

let folder: string;
beforeAll(async () => void (folder = await mkdtemp(join(tmpdir(), "troupe-round-test-"))));
const opened: LearnerCompute[] = [];
afterAll(async () => {
  await Promise.all(opened.map((learner) => learner.close()));
  await rm(folder, { recursive: true, force: true });
});
async function open(settings: LearnerSettings): Promise<LearnerCompute> {
  const learner = await LearnerCompute.open(settings);
  opened.push(learner);
  return learner;
}

const rows = { kind: "sft", rows: sftRows(8) } as const;
const order = (first: number, count: number, optimizerStep: number, learningRates = LR) => ({
  shards: shardsOf(rows, SHARDS).slice(first, first + count),
  shardCount: SHARDS,
  denominators: { main: denominatorOf(rows), ptx: 0 },
  learningRates,
  optimizerStep,
  innerStep: optimizerStep,
});

let files = 0;
/** Every memory of the learner, by tensor name. */
async function stateOf(learner: LearnerCompute): Promise<Map<string, Float32Array>> {
  const path = join(folder, `state-${files++}.safetensors`);
  await learner.exportState({ path, digest: "d" });
  const file = await SafetensorsFile.open(path);
  const state = new Map<string, Float32Array>();
  for (const tensor of file.header.tensors) {
    const values = new Float32Array(tensor.shape.reduce((size, extent) => size * extent, 1));
    await file.readInto(tensor, values);
    state.set(tensor.name, values);
  }
  await file.close();
  return state;
}

/** Largest difference over the tensors of one memory. */
function distance(
  a: ReadonlyMap<string, Float32Array>,
  b: ReadonlyMap<string, Float32Array>,
  memory: string,
): number {
  let largest = 0;
  for (const [name, values] of a) {
    if (!name.includes(`.${memory}.`)) continue;
    values.forEach((value, i) => (largest = Math.max(largest, Math.abs(value - b.get(name)![i]))));
  }
  return largest;
}

const sum = (vectors: readonly Float32Array[]): Float32Array =>
  vectors[0].map((_, i) => vectors.reduce((total, values) => total + values[i], 0));

describe("the outer step", () => {
  it("is Nesterov's, by hand: η 0.5, μ 0.9 over two rounds", () => {
    const values = Float32Array.of(1);
    const momentum = Float32Array.of(0);
    const settings = { outerLearningRate: 0.5, outerMomentum: 0.9 };
    // u = 0.2, θ = 1 − 0.5·(0.2 + 0.9·0.2)
    nesterovStep(values, momentum, Float32Array.of(0.2), settings);
    expect(momentum[0]).toBeCloseTo(0.2, 6);
    expect(values[0]).toBeCloseTo(0.81, 6);
    // u = 0.9·0.2 − 0.1 = 0.08, θ = 0.81 − 0.5·(−0.1 + 0.9·0.08)
    nesterovStep(values, momentum, Float32Array.of(-0.1), settings);
    expect(momentum[0]).toBeCloseTo(0.08, 6);
    expect(values[0]).toBeCloseTo(0.824, 6);
  });

  it("with η 1 and μ 0 goes exactly to the average", () => {
    const [values, momentum] = [Float32Array.of(3, -2), Float32Array.of(0, 0)];
    nesterovStep(values, momentum, Float32Array.of(0.5, -0.25), { outerLearningRate: 1, outerMomentum: 0 });
    expect([...values]).toEqual([2.5, -1.75]);
  });
});

describe("a round of parameter averaging", () => {
  it("of one learner with η 1 and μ 0 is synchronous training, moments included", async () => {
    const [alone, synchronous] = [await open({ ...sftSettings, round: PLAIN }), await open(sftSettings)];
    for (const optimizerStep of [1, 2, 3]) {
      await alone.round.innerStep(order(0, SHARDS, optimizerStep));
      const { nodes } = await synchronous.computeShards(order(0, SHARDS, optimizerStep));
      await synchronous.applyGradients({ gradients: nodes[0].gradients, learningRates: LR, optimizerStep });
    }
    const { values } = await alone.round.contribution(1);
    await alone.outerStep({ total: values, step: 1, updates: 3 });
    const [a, b] = [await stateOf(alone), await stateOf(synchronous)];
    expect(distance(a, b, "param")).toBeLessThan(2e-7);
    expect(distance(a, b, "m")).toBe(0);
    expect(distance(a, b, "v")).toBe(0);
  });

  it("of several learners after one step of plain SGD is the step of the whole minibatch", async () => {
    // β 0 and a huge ε turn AdamW into SGD: η·g / (|g| + ε).
    const sgd = { ...OPTIMIZER, beta1: 0, beta2: 0, epsilon: 1e6, weightDecay: 0, clipNorm: 0 };
    const settings = { ...sftSettings, optimizers: { model: sgd } };
    const rates = { ...LR, model: 1e5 };
    const learners = [await open({ ...settings, round: PLAIN }), await open({ ...settings, round: PLAIN })];
    const shares = [1, 3]; // uneven on purpose
    const contributions = [];
    for (const [i, learner] of learners.entries()) {
      await learner.round.innerStep(order(i === 0 ? 0 : 1, shares[i], 1, rates));
      contributions.push((await learner.round.contribution(shares[i] / SHARDS)).values);
    }
    for (const learner of learners)
      await learner.outerStep({ total: sum(contributions), step: 1, updates: 1 });
    const whole = await open(settings);
    const before = await stateOf(whole);
    const { nodes } = await whole.computeShards(order(0, SHARDS, 1));
    await whole.applyGradients({ gradients: nodes[0].gradients, learningRates: rates, optimizerStep: 1 });
    const [averaged, expected] = [await stateOf(learners[0]), await stateOf(whole)];
    expect(distance(before, expected, "param")).toBeGreaterThan(1e-3);
    expect(distance(averaged, expected, "param")).toBeLessThan(1e-6);
    expect(await learners[0].stateSha256()).toBe(await learners[1].stateSha256());
  });

  it("moves along the mean of the learners' changes, and means of moments add up to moments", async () => {
    const round = { ...PLAIN, outerLearningRate: 0.5, outerMomentum: 0.9 };
    const learners = [await open({ ...sftSettings, round }), await open({ ...sftSettings, round })];
    const start = await stateOf(learners[0]);
    const trained: Map<string, Float32Array>[] = [];
    const contributions = [];
    const weights = [0.25, 0.75];
    for (const [i, learner] of learners.entries()) {
      for (const step of [1, 2]) await learner.round.innerStep(order(2 * i, 2, step));
      trained.push(await stateOf(learner));
      contributions.push((await learner.round.contribution(weights[i])).values);
    }
    await learners[1].outerStep({ total: sum(contributions), step: 1, updates: 2 });
    const after = await stateOf(learners[1]);
    for (const [name, values] of after) {
      const mean = (i: number) =>
        trained.reduce((total, state, k) => total + weights[k] * state.get(name)![i], 0);
      values.forEach((value, i) => {
        const change = start.get(name)![i] - mean(i);
        if (name.includes(".param."))
          expect(value).toBeCloseTo(start.get(name)![i] - 0.5 * (change + 0.9 * change), 5);
        if (name.includes(".m.") || name.includes(".v.")) expect(value).toBeCloseTo(mean(i), 6);
        if (name.includes(".outer.")) {
          const parameter = name.replace(".outer.", ".param.");
          const meanParameter = trained.reduce(
            (total, state, k) => total + weights[k] * state.get(parameter)![i],
            0,
          );
          expect(value).toBeCloseTo(start.get(parameter)![i] - meanParameter, 6);
        }
      });
    }
  });

  it.each([true, false])(
    "leaves no trace when it is given up (moments averaged: %s)",
    async (averageMoments) => {
      const learner = await open({ ...ppoSettings({ emaDecay: 0.9 }), round: { ...PLAIN, averageMoments } });
      const ppo = { kind: "ppo", rows: ppoRows(4) } as const;
      const step = (optimizerStep: number) =>
        learner.round.innerStep({
          shards: shardsOf(ppo, 2),
          shardCount: 2,
          denominators: { main: denominatorOf(ppo), ptx: 0 },
          learningRates: LR,
          optimizerStep,
          innerStep: optimizerStep,
        });
      await step(1);
      const { values, startCrc32 } = await learner.round.contribution(1);
      await learner.outerStep({ total: values, step: 1, updates: 1 });
      const committed = await learner.stateSha256();
      await step(2);
      expect(await learner.stateSha256()).not.toBe(committed);
      await learner.round.rollBack();
      expect(await learner.stateSha256()).toBe(committed);
      await step(2);
      const second = await learner.round.contribution(1); // the sum fails after this
      expect(await learner.stateSha256()).toBe(committed);
      expect(second.startCrc32).not.toBe(startCrc32);
      await learner.round.rollBack();
      expect(await learner.stateSha256()).toBe(committed);
    },
  );

  it("without averaged moments sends parameters only and starts every round from zero moments", async () => {
    const round = { ...PLAIN, averageMoments: false };
    const [short, long] = [
      await open({ ...sftSettings, round }),
      await open({ ...sftSettings, round: PLAIN }),
    ];
    const lengths = [];
    for (const learner of [short, long]) {
      await learner.round.innerStep(order(0, SHARDS, 1));
      const { values, elementCount } = await learner.round.contribution(1);
      expect(values).toHaveLength(elementCount);
      lengths.push(elementCount);
      await learner.outerStep({ total: values, step: 1, updates: 1 });
    }
    expect(lengths[1]).toBe(3 * lengths[0]);
    const zero = await stateOf(short);
    for (const [name, values] of zero)
      if (/\.[mv]\./.test(name)) expect(values.every((value) => value === 0)).toBe(true);
  });

  it("of a learner without rows adds nothing and takes the average", async () => {
    const [worker, idle] = [
      await open({ ...sftSettings, round: PLAIN }),
      await open({ ...sftSettings, round: PLAIN }),
    ];
    await worker.round.innerStep(order(0, SHARDS, 1));
    await idle.round.innerStep(order(0, 0, 1));
    const { values } = await worker.round.contribution(1);
    const none = await idle.round.contribution(0);
    expect(none.values).toHaveLength(0);
    expect(none.elementCount).toBe(values.length);
    for (const learner of [worker, idle])
      await learner.outerStep({ total: values.slice(), step: 1, updates: 1 });
    expect(await idle.stateSha256()).toBe(await worker.stateSha256());
  });

  it("decays the moving average once for every optimizer step of the round", async () => {
    const learner = await open({ ...ppoSettings({ emaDecay: 0.9 }), round: PLAIN });
    const before = await stateOf(learner);
    const ppo = { kind: "ppo", rows: ppoRows(4) } as const;
    for (const optimizerStep of [1, 2, 3])
      await learner.round.innerStep({
        shards: shardsOf(ppo, 2),
        shardCount: 2,
        denominators: { main: denominatorOf(ppo), ptx: 0 },
        learningRates: LR,
        optimizerStep,
        innerStep: optimizerStep,
      });
    const { values } = await learner.round.contribution(1);
    await learner.outerStep({ total: values, step: 1, updates: 3 });
    const after = await stateOf(learner);
    for (const [name, values] of after) {
      if (!name.startsWith("actor.ema.")) continue;
      const parameter = after.get(name.replace(".ema.", ".param."))!;
      values.forEach((value, i) =>
        expect(value).toBeCloseTo(0.729 * before.get(name)![i] + 0.271 * parameter[i], 5),
      );
    }
  });
});
