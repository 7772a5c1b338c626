import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  LearnerCompute,
  type LearnerSettings,
  type ShardsResult,
} from "../../../src/learner/learner-compute.js";
import { denominatorOf, type PpoRow, type ShardRows } from "../../../src/learner/shards.js";
import { TreeSum } from "../../../src/learner/tree-sum.js";
import { SafetensorsFile } from "../../../src/shared/safetensors.js";
import { pairs, ppoRows, ppoSettings, rewardSettings, sftRows, sftSettings, shardsOf } from "./fixtures.js";

const SHARDS = 8;
const LR = { model: 0.02, actor: 0.02, critic: 0.02 };
let folder: string;
beforeAll(async () => void (folder = await mkdtemp(join(tmpdir(), "troupe-learner-test-"))));
afterAll(() => rm(folder, { recursive: true, force: true }));

const opened: LearnerCompute[] = [];
async function open(settings: LearnerSettings): Promise<LearnerCompute> {
  const learner = await LearnerCompute.open(settings);
  opened.push(learner);
  return learner;
}
afterAll(() => Promise.all(opened.map((learner) => learner.close())));

function denominators(rows: ShardRows) {
  const ptx = rows.kind === "ppo" && rows.ptx ? denominatorOf({ kind: "sft", rows: rows.ptx }) : 0;
  return { main: denominatorOf(rows), ptx };
}

/** The total over contiguous ranges of shards, one `computeShards` call each, as so many learners would make it. */
async function gradientOf(
  learner: LearnerCompute,
  rows: ShardRows,
  shardCount = SHARDS,
  cuts: readonly number[] = [],
): Promise<Float32Array> {
  const shards = shardsOf(rows, shardCount);
  const tree = new TreeSum();
  const edges = [0, ...cuts, shardCount];
  for (let i = 0; i + 1 < edges.length; i++) {
    const part = shards.slice(edges[i], edges[i + 1]);
    const { nodes } = await learner.computeShards({
      shards: part,
      shardCount,
      denominators: denominators(rows),
    });
    for (const { level, index, gradients } of nodes) tree.push({ level, index, values: gradients });
  }
  return tree.total(shardCount);
}

async function step(
  learner: LearnerCompute,
  rows: ShardRows,
  optimizerStep: number,
  shardCount = 2,
  cuts: readonly number[] = [],
): Promise<void> {
  const gradients = await gradientOf(learner, rows, shardCount, cuts);
  await learner.applyGradients({ gradients, learningRates: LR, optimizerStep });
}

/** Learning takes many steps: one program run each. */
const inOneRun = (settings: LearnerSettings): LearnerSettings => ({ ...settings, microBatchTokens: 512 });
async function train(learner: LearnerCompute, rows: ShardRows, steps: number): Promise<void> {
  for (let i = 1; i <= steps; i++) await step(learner, rows, i, 1);
}

const sum = (results: ShardsResult, name: string) =>
  results.stats.reduce((total, { values }) => total + (values[name] ?? 0), 0);

const stages: [string, LearnerSettings, ShardRows][] = [
  ["sft", sftSettings, { kind: "sft", rows: sftRows(12) }],
  ["reward, end-score", rewardSettings("end-score"), { kind: "reward", rows: pairs(12) }],
  ["reward, span", rewardSettings("span"), { kind: "reward", rows: pairs(12) }],
  ["ppo", ppoSettings(), { kind: "ppo", rows: ppoRows(12) }],
];

const ENGINES = ["onnx", "reference"] as const;
const onEveryEngine = stages.flatMap(([name, settings, rows]) =>
  ENGINES.map((engine) => [name, engine, { ...settings, engine: { name: engine } }, rows] as const),
);

describe.each(stages)("gradients of %s", (_name, settings, rows) => {
  it("are the same on every engine", async () => {
    const [onnx, reference] = await Promise.all(
      ENGINES.map(async (name) => gradientOf(await open({ ...settings, engine: { name } }), rows, 1)),
    );
    const largest = reference.reduce((max, x) => Math.max(max, Math.abs(x)), 0);
    onnx.forEach((x, i) => expect(Math.abs(x - reference[i]) / largest).toBeLessThan(1e-5));
  });
});

describe.each(onEveryEngine)("gradients of %s on %s", (_name, _engine, settings, rows) => {
  it("do not depend on how the minibatch is cut into micro-shards", async () => {
    const learner = await open(settings);
    const whole = await gradientOf(learner, rows, 1);
    const largest = whole.reduce((max, x) => Math.max(max, Math.abs(x)), 0);
    expect(largest).toBeGreaterThan(1e-3);
    for (const shardCount of [2, 8]) {
      const sharded = await gradientOf(learner, rows, shardCount);
      const error = sharded.reduce((max, x, i) => Math.max(max, Math.abs(x - whole[i])), 0);
      expect(error / largest, `${shardCount} shards`).toBeLessThan(1e-6);
    }
  });

  it("and the parameters after a step are bit-identical for any partition of the shards among learners", async () => {
    const hashes = new Set<string>();
    for (const cuts of [[], [4], [1, 6], [1, 2, 3, 4, 5, 6, 7]]) {
      const learner = await open(settings);
      await step(learner, rows, 1, SHARDS, cuts);
      hashes.add(await learner.stateSha256());
    }
    expect(hashes.size).toBe(1);
  });

  it("equal finite differences of the loss", async () => {
    const learner = await open(settings);
    const request = { shards: shardsOf(rows, 1), shardCount: 1, denominators: denominators(rows) };
    const lossOf = async () => {
      const result = await learner.computeShards(request);
      return sum(result, settings.stage === "ppo" ? "policyLoss" : "loss") + sum(result, "valueLoss");
    };
    const gradient = await gradientOf(learner, rows, 1);
    const norm = Math.hypot(...gradient);
    // One step of size h along ±gradient must change the loss by ±h·|gradient|.
    const path = join(folder, `fd-${settings.stage}.safetensors`);
    await learner.exportState({ path, digest: "d" });
    const h = 1e-3;
    const moved = async (sign: number) => {
      await moveParameters(learner, gradient, (sign * h) / norm);
      const loss = await lossOf();
      await learner.loadState(path);
      return loss;
    };
    const slope = ((await moved(1)) - (await moved(-1))) / (2 * h);
    expect(Math.abs(slope / norm - 1)).toBeLessThan(0.02);
  });
});

/** Adds `scale · direction` to the parameters of all models, in role order. */
async function moveParameters(
  learner: LearnerCompute,
  direction: Float32Array,
  scale: number,
): Promise<void> {
  const { models } = learner as unknown as {
    models: { params: { read(): Promise<Float32Array>; write(values: Float32Array): Promise<void> } }[];
  };
  let offset = 0;
  for (const { params } of models) {
    const values = (await params.read()).slice();
    await params.write(values.map((x, i) => x + scale * direction[offset + i]));
    offset += values.length;
  }
}

describe("LearnerCompute, sft", () => {
  const rows = { kind: "sft", rows: sftRows(6) } as const;

  it("the loss falls, and evaluate agrees with it", async () => {
    const learner = await open(inOneRun(sftSettings));
    const perToken = async () => {
      const { nll, tokens } = await learner.evaluate({ rows });
      return nll.reduce((a, b) => a + b) / tokens.reduce((a, b) => a + b);
    };
    const before = await perToken();
    expect(before).toBeGreaterThan(2.9); // ln 23 = 3.14: knows nothing
    const result = await learner.computeShards({
      shards: shardsOf(rows, 2),
      shardCount: 2,
      denominators: denominators(rows),
    });
    expect(sum(result, "loss")).toBeCloseTo(before, 5);
    expect(sum(result, "targetTokens")).toBe(denominatorOf(rows));
    expect(sum(result, "rows")).toBe(6);
    await train(learner, rows, 25);
    expect(await perToken()).toBeLessThan(before - 1);
  });

  it("evaluate gives a row the same numbers in any company", async () => {
    const learner = await open(sftSettings);
    const together = await learner.evaluate({ rows });
    const alone = await learner.evaluate({ rows: { kind: "sft", rows: [rows.rows[3]] } });
    expect(alone.nll[0]).toBeCloseTo(together.nll[3], 4);
    expect(alone.tokens[0]).toBe(together.tokens[3]);
  });
});

describe("LearnerCompute, reward", () => {
  it.each(["end-score", "span"] as const)("%s: learns to rank its training pairs", async (kind) => {
    const learner = await open(inOneRun(rewardSettings(kind)));
    const rows = { kind: "reward", rows: pairs(8) } as const;
    const result = await learner.computeShards({
      shards: shardsOf(rows, 4),
      shardCount: 4,
      denominators: denominators(rows),
    });
    expect(Math.abs(sum(result, "loss") - Math.LN2)).toBeLessThan(0.5);
    expect(sum(result, "pairs")).toBe(8);
    await train(learner, rows, 25);
    const { chosen_score: chosen, rejected_score: rejected } = await learner.evaluate({ rows });
    const accuracy = chosen.filter((score, b) => score > rejected[b]).length / 8;
    expect(accuracy).toBe(1);
  });
});

describe("LearnerCompute, ppo", () => {
  /** Rows whose old log-probs are the actor's own, as rollouts of the current policy have them. */
  async function onPolicy(learner: LearnerCompute, rows: readonly PpoRow[]): Promise<PpoRow[]> {
    const fixed: PpoRow[] = [];
    for (const row of rows) {
      // Recover log π(token i) from evaluate: with all old log-probs 0 and one counted token, |log ratio| is −log π.
      const zero = new Float32Array(row.responseIds.length);
      const logprobs = zero.slice();
      for (let i = 0; i < zero.length; i++) {
        const actionMask = new Uint8Array(zero.length);
        actionMask[i] = 1;
        const { max_abs_log_ratio: ratio } = await learner.evaluate({
          rows: { kind: "ppo", rows: [{ ...row, logprobs: zero, actionMask }] },
        });
        logprobs[i] = -ratio[0];
      }
      fixed.push({ ...row, logprobs });
    }
    return fixed;
  }

  it("step 0: on its own samples the ratio is 1 and nothing is clipped", async () => {
    const learner = await open(ppoSettings());
    const rows = { kind: "ppo", rows: await onPolicy(learner, ppoRows(4)) } as const;
    const result = await learner.computeShards({
      shards: shardsOf(rows, 2),
      shardCount: 2,
      denominators: denominators(rows),
    });
    const tokens = sum(result, "tokens");
    expect(tokens).toBe(denominatorOf(rows));
    expect(sum(result, "ratioSum") / tokens).toBeCloseTo(1, 5);
    expect(sum(result, "absLogRatioSum") / tokens).toBeLessThan(1e-5);
    expect(sum(result, "clipFracSum")).toBe(0);
    const meanAdvantage = rows.rows.flatMap((row) => [...row.advantages]).reduce((a, b) => a + b) / tokens;
    expect(sum(result, "policyLoss")).toBeCloseTo(-meanAdvantage, 5);
    const { max_abs_log_ratio: ratio } = await learner.evaluate({ rows });
    expect(Math.max(...ratio)).toBeLessThan(1e-5);
  });

  it("an update raises the probability of tokens with positive advantage and lowers the others", async () => {
    const learner = await open(ppoSettings());
    const before = await onPolicy(learner, ppoRows(4));
    const rows = { kind: "ppo", rows: before } as const;
    await learner.applyGradients({
      gradients: await gradientOf(learner, rows, 4),
      learningRates: { actor: 0.002, critic: 0.002 },
      optimizerStep: 1,
    });
    const after = await onPolicy(learner, before);
    let gain = 0;
    before.forEach((row, b) =>
      row.advantages.forEach((a, i) => (gain += a * (after[b].logprobs[i] - row.logprobs[i]))),
    );
    expect(gain).toBeGreaterThan(0.01);
  });

  it("a token that the action mask leaves out has no influence on the gradient", async () => {
    const learner = await open(ppoSettings());
    const [row] = ppoRows(1).filter((r) => r.responseIds.length > 2);
    const actionMask = row.actionMask.slice();
    actionMask[actionMask.length - 1] = 0;
    const change = (x: Float32Array) => x.map((v, i) => (i === x.length - 1 ? v + 5 : v));
    const masked = { ...row, actionMask };
    const other = {
      ...masked,
      advantages: change(row.advantages),
      returns: change(row.returns),
      values: change(row.values),
      logprobs: change(row.logprobs),
    };
    const [a, b] = [masked, other].map((r) => ({ kind: "ppo", rows: [r] }) as const);
    expect(await gradientOf(learner, a, 1)).toEqual(await gradientOf(learner, b, 1));
    expect(await gradientOf(learner, { kind: "ppo", rows: [row] }, 1)).not.toEqual(
      await gradientOf(learner, a, 1),
    );
  });

  it("the critic reads the state before each token, the actor the token itself", async () => {
    const learner = await open(ppoSettings());
    const [row] = ppoRows(1);
    const statsOf = async (changed: Partial<PpoRow>) => {
      const rows = { kind: "ppo", rows: [{ ...row, ...changed }] } as const;
      const { stats } = await learner.computeShards({
        shards: shardsOf(rows, 1),
        shardCount: 1,
        denominators: { main: 1, ptx: 0 },
      });
      return stats[0].values;
    };
    const withToken = (ids: Int32Array, at: number) =>
      ids.map((id, i) => (i === at ? (id === 2 ? 3 : 2) : id));
    const last = row.responseIds.length - 1;
    const original = await statsOf({});
    const otherEnd = await statsOf({ responseIds: withToken(row.responseIds, last) });
    expect(otherEnd.valueSum).toBe(original.valueSum);
    expect(otherEnd.ratioSum).not.toBe(original.ratioSum);
    // The value before the first response token sees the whole prompt and none of the response.
    const actionMask = new Uint8Array(last + 1);
    actionMask[0] = 1;
    const first = await statsOf({ actionMask });
    const otherFirst = await statsOf({ actionMask, responseIds: withToken(row.responseIds, 0) });
    const otherPrompt = await statsOf({
      actionMask,
      promptIds: withToken(row.promptIds, row.promptIds.length - 1),
    });
    expect(otherFirst.valueSum).toBe(first.valueSum);
    expect(otherFirst.ratioSum).not.toBe(first.ratioSum);
    expect(otherPrompt.valueSum).not.toBe(first.valueSum);
    // ... and the actor's first log-prob does not see the second token.
    const otherSecond = await statsOf({ actionMask, responseIds: withToken(row.responseIds, 1) });
    expect(otherSecond.ratioSum).toBe(first.ratioSum);
  });

  it("log-probs are those at the sampling temperature", async () => {
    const rows = ppoRows(3);
    const hot = await open(ppoSettings({ temperature: 2 }));
    const cold = await open(ppoSettings({ temperature: 1 }));
    const hotRows = await onPolicy(hot, rows);
    const { max_abs_log_ratio: same } = await hot.evaluate({ rows: { kind: "ppo", rows: hotRows } });
    const { max_abs_log_ratio: other } = await cold.evaluate({ rows: { kind: "ppo", rows: hotRows } });
    expect(Math.max(...same)).toBeLessThan(1e-5);
    expect(Math.max(...other)).toBeGreaterThan(1e-3);
  });

  it("microbatch-tokens averages the shards' own means", async () => {
    const rows = { kind: "ppo", rows: ppoRows(6) } as const;
    const perShard = await open(ppoSettings({ lossDenominator: "microbatch-tokens" }));
    const result = await perShard.computeShards({
      shards: shardsOf(rows, 2),
      shardCount: 2,
      denominators: denominators(rows),
    });
    const global = await open(ppoSettings());
    const halves = await Promise.all(
      shardsOf(rows, 2).map(async ({ rows: half }) => {
        const own = await global.computeShards({
          shards: [{ index: 0, rows: half }],
          shardCount: 1,
          denominators: denominators(half),
        });
        return sum(own, "policyLoss");
      }),
    );
    expect(halves[0]).not.toBeCloseTo(halves[1], 2);
    expect(sum(result, "policyLoss")).toBeCloseTo((halves[0] + halves[1]) / 2, 5);
  });

  it("ptx rows add their language-model gradient to the actor's only", async () => {
    const learner = await open(ppoSettings({ ptxCoef: 2 }));
    const plain = { kind: "ppo", rows: ppoRows(4) } as const;
    const mixed = { ...plain, ptx: sftRows(3) } as const;
    const [without, withPtx] = [await gradientOf(learner, plain, 1), await gradientOf(learner, mixed, 1)];
    const sft = await open({ ...sftSettings, models: [{ ...sftSettings.models[0], initSeed: 3 }] });
    const language = await gradientOf(sft, { kind: "sft", rows: mixed.ptx }, 1);
    withPtx.forEach((g, i) => expect(g).toBeCloseTo(without[i] + 2 * (language[i] ?? 0), 5));
    const result = await learner.computeShards({
      shards: shardsOf(mixed, 1),
      shardCount: 1,
      denominators: denominators(mixed),
    });
    expect(sum(result, "ptxTargetTokens")).toBe(denominators(mixed).ptx);
    expect(sum(result, "loss")).toBe(0);
  });

  it("the moving average keeps 0.992 of itself at every step", async () => {
    const learner = await open(ppoSettings({ emaDecay: 0.992 }));
    const read = async (ema: boolean) => {
      const path = join(folder, "ema.safetensors");
      await learner.exportModel({ role: "actor", path, ema });
      const file = await SafetensorsFile.open(path);
      const tensor = file.header.tensors.find(({ name }) => name === "transformer.wte.weight")!;
      const values = new Float32Array((tensor.end - tensor.begin) / 4);
      await file.readInto(tensor, values);
      await file.close();
      return values;
    };
    const start = await read(false);
    expect(await read(true)).toEqual(start);
    const rows = { kind: "ppo", rows: ppoRows(4) } as const;
    let expected = Array.from(start);
    for (let i = 1; i <= 3; i++) {
      await step(learner, rows, i);
      const now = await read(false);
      expected = expected.map((x, k) => 0.992 * x + (1 - 0.992) * now[k]);
    }
    const ema = await read(true);
    expected.forEach((x, i) => expect(ema[i]).toBeCloseTo(x, 7));
    expect(ema).not.toEqual(start);
    // weight of the start after n steps is 0.992^n: half after 86
    expect(0.992 ** 86).toBeCloseTo(0.5, 2);
  });

  it("an empty micro-shard adds zeros", async () => {
    const learner = await open(ppoSettings());
    const { nodes, stats } = await learner.computeShards({
      shards: [{ index: 0, rows: { kind: "ppo", rows: [] } }],
      shardCount: 2,
      denominators: { main: 10, ptx: 0 },
    });
    expect(nodes[0].gradients.every((g) => g === 0)).toBe(true);
    expect(stats).toEqual([{ shard: 0, values: { rows: 0 } }]);
  });
});

describe("LearnerCompute, state", () => {
  const rows = { kind: "ppo", rows: ppoRows(6) } as const;
  const settings = ppoSettings({ emaDecay: 0.99 });

  it("save, load and go on gives the bits of going on", async () => {
    const path = join(folder, "state.safetensors");
    const first = await open(settings);
    for (let i = 1; i <= 3; i++) await step(first, rows, i);
    await first.exportState({ path, digest: "d" });
    const resumed = await open(settings);
    expect(await resumed.stateSha256()).not.toBe(await first.stateSha256());
    expect(await resumed.loadState(path)).toEqual({ optimizerStep: 3, digest: "d" });
    expect(await resumed.stateSha256()).toBe(await first.stateSha256());
    for (const learner of [first, resumed]) for (let i = 4; i <= 6; i++) await step(learner, rows, i);
    expect(await resumed.stateSha256()).toBe(await first.stateSha256());
  });

  it("a step applies the gradient it is given, whatever was computed since", async () => {
    const [plain, busy] = [await open(settings), await open(settings)];
    const gradients = await gradientOf(plain, rows);
    await busy.computeShards({
      shards: shardsOf({ kind: "ppo", rows: ppoRows(3) }, 1),
      shardCount: 1,
      denominators: { main: 9, ptx: 0 },
    });
    for (const learner of [plain, busy])
      await learner.applyGradients({ gradients, learningRates: LR, optimizerStep: 1 });
    expect(await busy.stateSha256()).toBe(await plain.stateSha256());
  });

  it("an exported model is where another learner starts", async () => {
    const path = join(folder, "actor.safetensors");
    const first = await open(settings);
    await step(first, rows, 1);
    await first.exportModel({ role: "actor", path });
    const models = settings.models.map((model) =>
      model.role === "actor" ? { ...model, file: path, initSeed: 99 } : model,
    );
    const second = await open({ ...settings, models });
    const evaluation = { rows };
    expect(await second.evaluate(evaluation)).toEqual(await first.evaluate(evaluation));
  });

  it("the file names every tensor by role and memory", async () => {
    const path = join(folder, "names.safetensors");
    const learner = await open(settings);
    await learner.exportState({ path, digest: "d" });
    const file = await SafetensorsFile.open(path);
    const names = file.header.tensors.map(({ name }) => name);
    await file.close();
    expect(names).toEqual([...names].sort());
    expect(new Set(names.map((name) => name.split(".").slice(0, 2).join(".")))).toEqual(
      new Set(["actor.ema", "actor.m", "actor.param", "actor.v", "critic.m", "critic.param", "critic.v"]),
    );
    expect(names).toContain("critic.v.score.weight");
  });

  it("refuses a state of other models and changes nothing", async () => {
    const path = join(folder, "other.safetensors");
    const learner = await open(ppoSettings());
    await learner.exportState({ path, digest: "d" });
    const withEma = await open(settings);
    const before = await withEma.stateSha256();
    await expect(withEma.loadState(path)).rejects.toThrow(/actor\.ema\.\S+ is missing/);
    const sft = await open(sftSettings);
    await expect(sft.loadState(path)).rejects.toThrow(/state of stage sft, got ppo/);
    expect(await withEma.stateSha256()).toBe(before);
  });

  it("never applies a gradient that is not finite", async () => {
    const learner = await open(settings);
    const before = await learner.stateSha256();
    for (const bad of [NaN, Infinity, 1e30]) {
      const gradients = new Float32Array(learner.parameterCount);
      gradients[learner.parameterCount - 1] = bad; // the critic's: the actor must not have moved either
      const apply = learner.applyGradients({ gradients, learningRates: LR, optimizerStep: 1 });
      await expect(apply).rejects.toMatchObject({
        code: "NUMERIC",
        message: expect.stringContaining("critic") as string,
      });
    }
    expect(await learner.stateSha256()).toBe(before);
  });

  it("reports gradient norms by role, before clipping", async () => {
    const learner = await open(settings);
    const gradients = new Float32Array(learner.parameterCount).fill(3);
    const { gradNorms } = await learner.applyGradients({ gradients, learningRates: LR, optimizerStep: 1 });
    const total = Math.hypot(gradNorms.actor, gradNorms.critic);
    expect(total).toBeCloseTo(3 * Math.sqrt(learner.parameterCount), 3);
  });

  it("names what is missing or misplaced", async () => {
    const learner = await open(settings);
    const apply = (gradients: Float32Array, learningRates: Record<string, number>) =>
      learner.applyGradients({ gradients, learningRates, optimizerStep: 1 });
    await expect(apply(new Float32Array(3), LR)).rejects.toThrow(/elements, got 3/);
    await expect(apply(new Float32Array(learner.parameterCount), { actor: 1 })).rejects.toThrow(
      /no learning rate for model critic/,
    );
    await expect(learner.evaluate({ rows: { kind: "sft", rows: sftRows(1) } })).rejects.toThrow(
      /no model in role model/,
    );
    const wrongStage = {
      shards: [{ index: 0, rows: { kind: "sft", rows: sftRows(1) } as const }],
      shardCount: 1,
      denominators: { main: 1, ptx: 0 },
    };
    await expect(learner.computeShards(wrongStage)).rejects.toThrow(/sft rows came in stage ppo/);
    const noTokens = { shards: shardsOf(rows, 1), shardCount: 1, denominators: { main: 0, ptx: 0 } };
    await expect(learner.computeShards(noTokens)).rejects.toThrow(/denominator must be above 0/);
    await expect(LearnerCompute.open({ ...settings, optimizers: {} })).rejects.toThrow(
      /model actor has no optimizer settings/,
    );
  });
});
