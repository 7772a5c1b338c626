/** A learner with several threads computes micro-shards side by side; its bits are those of one thread. */
import { createHash } from "node:crypto";
import { describe, expect, it } from "vitest";
import { LearnerCompute, type LearnerSettings } from "../../../src/learner/learner-compute.js";
import type { PpoRow, ShardRows } from "../../../src/learner/shards.js";
import { freshGpt2Spec, toHfConfig } from "../../../src/models/model-spec.js";
import { uniformAt, streamOf } from "../../../src/shared/rng.js";
import { OPTIMIZER, PPO_HYPER, shardsOf } from "./fixtures.js";

const SHARDS = 4;
const ROWS = 8;
const RESPONSE = 24;
const VOCABULARY = 509;
/** Large enough that runs leave their caller's thread, and that products are split over the threads of a lone run. */
const spec = freshGpt2Spec({
  head: "lm",
  layers: 2,
  hidden: 96,
  heads: 4,
  contextTokens: 64,
  vocabularySize: VOCABULARY,
  eosTokenId: 0,
  padTokenId: 1,
});
const hfConfigJson = JSON.stringify(toHfConfig(spec));
const settings = (threads: number): LearnerSettings => ({
  stage: "ppo",
  hyper: { ...PPO_HYPER, emaDecay: 0.9 },
  engine: { name: "onnx", threads },
  padId: 1,
  microBatchTokens: 64,
  models: [
    { role: "actor", head: "lm", initSeed: 1, hfConfigJson, file: null },
    { role: "critic", head: "scalar", initSeed: 2, hfConfigJson, file: null },
  ],
  optimizers: { actor: OPTIMIZER, critic: OPTIMIZER },
});

const noise = (name: string, count: number): Float32Array =>
  Float32Array.from({ length: count }, (_, i) => uniformAt(3, streamOf(name), i) - 0.5);
const ids = (name: string, count: number): Int32Array =>
  Int32Array.from(noise(name, count), (value) => 2 + Math.floor((value + 0.5) * (VOCABULARY - 2)));

const rows: ShardRows = {
  kind: "ppo",
  rows: Array.from({ length: ROWS }, (_, row): PpoRow => ({
    promptIds: ids(`prompt ${row}`, 5 + 3 * row),
    responseIds: ids(`response ${row}`, RESPONSE),
    actionMask: new Uint8Array(RESPONSE).fill(1),
    logprobs: noise(`old ${row}`, RESPONSE).map((value) => value - 6),
    advantages: noise(`advantage ${row}`, RESPONSE),
    values: noise(`value ${row}`, RESPONSE),
    returns: noise(`return ${row}`, RESPONSE),
  })),
};

const bitsOf = (values: ArrayBufferView): string =>
  createHash("sha256")
    .update(new Uint8Array(values.buffer, values.byteOffset, values.byteLength))
    .digest("hex");

/** What two optimizer steps report, the bits of their gradients, and those of the state after them. */
async function train(threads: number) {
  const learner = await LearnerCompute.open(settings(threads));
  const reports: unknown[] = [];
  for (const optimizerStep of [1, 2]) {
    const { nodes, stats } = await learner.computeShards({
      shards: shardsOf(rows, SHARDS),
      shardCount: SHARDS,
      denominators: { main: ROWS * RESPONSE, ptx: 0 },
    });
    reports.push(bitsOf(nodes[0].gradients));
    const learningRates = { actor: 0.01, critic: 0.01 };
    const request = { gradients: nodes[0].gradients, learningRates, optimizerStep };
    reports.push(stats, await learner.applyGradients(request));
  }
  const { logprobs } = await learner.evaluate({ rows });
  const state = await learner.stateSha256();
  await learner.close();
  return { reports, logprobs: bitsOf(logprobs), state };
}

describe("a learner with 2 or 3 threads", () => {
  it("computes gradients, statistics, log-probabilities and weights with the bits of one thread", async () => {
    const expected = await train(1);
    for (const threads of [2, 3]) expect(await train(threads)).toEqual(expected);
  });
});
