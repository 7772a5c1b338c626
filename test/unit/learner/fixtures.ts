/** A tiny model and seeded rows for the learner's tests. */
import { toHfConfig, freshGpt2Spec } from "../../../src/models/model-spec.js";
import type { LearnerSettings } from "../../../src/learner/learner-compute.js";
import type { MicroShard, PpoRow, PreferencePair, SftRow, ShardRows } from "../../../src/learner/shards.js";
import { normalAt, streamOf, uniformAt } from "../../../src/shared/rng.js";

export const VOCABULARY = 23;
const EOS = 0;
export const PAD = 1;
const SEED = 5;

export const OPTIMIZER = { beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0.01, clipNorm: 1 };

export const PPO_HYPER = {
  cliprange: 0.2,
  cliprangeValue: 0.2,
  temperature: 1,
  ptxCoef: 0,
  emaDecay: null,
  lossDenominator: "global-tokens",
} as const;

const spec = freshGpt2Spec({
  head: "lm",
  layers: 1,
  hidden: 8,
  heads: 2,
  contextTokens: 32,
  vocabularySize: VOCABULARY,
  eosTokenId: EOS,
  padTokenId: PAD,
});
const hfConfigJson = JSON.stringify(toHfConfig(spec));

const model = (role: string, head: "lm" | "scalar", initSeed: number) => ({
  role,
  hfConfigJson,
  head,
  file: null,
  initSeed,
});
const common = { engine: { name: "onnx" }, padId: PAD, microBatchTokens: 32 } as const;

export const sftSettings: LearnerSettings = {
  ...common,
  stage: "sft",
  hyper: {},
  models: [model("model", "lm", 1)],
  optimizers: { model: OPTIMIZER },
};
export const rewardSettings = (rewardLoss: "end-score" | "span"): LearnerSettings => ({
  ...common,
  stage: "reward",
  hyper: { rewardLoss },
  models: [model("model", "scalar", 2)],
  optimizers: { model: OPTIMIZER },
});
export const ppoSettings = (
  hyper: Partial<Extract<LearnerSettings, { stage: "ppo" }>["hyper"]> = {},
): LearnerSettings => ({
  ...common,
  stage: "ppo",
  hyper: { ...PPO_HYPER, ...hyper },
  models: [model("critic", "scalar", 4), model("actor", "lm", 3)],
  optimizers: { actor: OPTIMIZER, critic: OPTIMIZER },
});

const ids = (name: string, length: number): Int32Array =>
  Int32Array.from(
    { length },
    (_, i) => 2 + Math.floor((VOCABULARY - 2) * uniformAt(SEED, streamOf(name), i)),
  );
const lengthOf = (name: string, low: number, high: number): number =>
  low + Math.floor((high - low + 1) * uniformAt(SEED, streamOf(`${name}/length`), 0));

export const sftRows = (count: number): SftRow[] =>
  Array.from({ length: count }, (_, b) => {
    const row = ids(`sft ${b}`, b === 0 ? 18 : lengthOf(`sft ${b}`, 4, 14));
    return { ids: row, lossMask: Uint8Array.from(row, (_, t) => (t >= 2 ? 1 : 0)) };
  });

export const pairs = (count: number): PreferencePair[] =>
  Array.from({ length: count }, (_, b) => {
    const prompt = [...ids(`pair ${b}`, 3)];
    const answer = (side: string) =>
      Int32Array.from([...prompt, ...ids(`${side} ${b}`, lengthOf(`${side} ${b}`, 1, 9)), EOS]);
    return { chosen: answer("chosen"), rejected: answer("rejected"), promptTokens: 3 };
  });

export const ppoRows = (count: number): PpoRow[] =>
  Array.from({ length: count }, (_, b) => {
    const tokens = b === 0 ? 14 : lengthOf(`ppo ${b}`, 1, 10);
    const normals = (name: string) =>
      Float32Array.from({ length: tokens }, (_, i) => normalAt(SEED, streamOf(`${name} ${b}`), i));
    return {
      promptIds: ids(`prompt ${b}`, lengthOf(`prompt ${b}`, 1, 6)),
      responseIds: ids(`response ${b}`, tokens),
      logprobs: normals("logprobs").map((x) => -3.1 + 0.2 * x),
      values: normals("values"),
      advantages: normals("advantages"),
      returns: normals("returns"),
      actionMask: new Uint8Array(tokens).fill(1),
    };
  });

/** Cuts rows into `shardCount` consecutive micro-shards, as evenly as they go. */
export function shardsOf<R extends ShardRows>(all: R, shardCount: number): MicroShard[] {
  const at = (shard: number) => Math.round((shard * all.rows.length) / shardCount);
  return Array.from({ length: shardCount }, (_, index) => ({
    index,
    rows: { ...all, rows: all.rows.slice(at(index), at(index + 1)) } as ShardRows,
  }));
}
