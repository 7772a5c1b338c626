/** Training results must not depend on threads, and sampled tokens not on who shares the batch. */
import * as tf from "@tensorflow/tfjs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Engine, HostArrays, Program } from "../../../src/engine/engine.js";
import { createEngine } from "../../../src/engine/create-engine.js";
import { makeAdamwProgram } from "../../../src/engine/optim.js";
import { expectIdentical } from "./closeness.js";
import { TestRandom } from "./random.js";
import { cacheLayout, tinyDecode, tinyLayout, tinyParams, type TinyGpt } from "./tiny-gpt.js";
import { gradientProgram, trainingInputs } from "./training-programs.js";
import { TINY } from "./tiny-gpt.js";

async function train(threads: number): Promise<HostArrays> {
  const { engine } = await createEngine({ name: "onnx", threads });
  const layout = tinyLayout(TINY);
  const params = engine.createArena(layout, tinyParams(layout));
  const [grads, m, v] = [0, 1, 2].map(() => engine.createArena(layout));
  const gradient = await engine.compile(gradientProgram("ppo"));
  const adamw = await engine.compile(
    makeAdamwProgram(layout, { beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0.1, clipNorm: 1 }),
  );
  let outputs: HostArrays = {};
  for (const step of [1, 2, 3]) {
    await grads.clear();
    outputs = await gradient.run({ params, grads }, trainingInputs(step));
    const scalars = { learningRate: Float32Array.of(1e-3), step: Float32Array.of(step) };
    outputs = { ...outputs, ...(await adamw.run({ params, grads, m, v }, scalars)) };
  }
  const state = { params: (await params.read()).slice(), v: (await v.read()).slice() };
  await engine.dispose();
  return { ...outputs, ...state };
}

describe("training on the onnx engine", () => {
  it("gives the same bits with one thread, with two, and again", async () => {
    const first = await train(1);
    expectIdentical(await train(1), first);
    expectIdentical(await train(2), first);
  });
});

/** Wide enough that matrix products take the kernels of real models. */
const GPT: TinyGpt = { layers: 2, hidden: 128, heads: 4, vocabulary: 509, context: 32 };
const SLOTS = 24;

function decodeProgram(batch: number, access: "read" | "frozen"): Program {
  return {
    key: `decode ${batch} ${access}`,
    arenas: {
      params: { layout: tinyLayout(GPT), access },
      cache: { layout: cacheLayout(GPT, batch, SLOTS), access: "update" },
    },
    inputs: { ids: { shape: [batch], dtype: "int32" }, lengths: { shape: [batch], dtype: "int32" } },
    body: ({ params, cache }, { ids, lengths }) => {
      const result = tinyDecode(GPT, params, cache, ids, lengths);
      return {
        outputs: { logits: result.logits, best: tf.argMax(result.logits, -1) },
        updates: { cache: result.cache },
      };
    },
  };
}

describe.each([1, 2])("decoding on the onnx engine with %d threads", (threads) => {
  let engine: Engine;
  beforeAll(async () => {
    ({ engine } = await createEngine({ name: "onnx", threads }));
  });
  afterAll(() => engine.dispose());

  /** Logits of one fixed sequence at `row`, among `batch` rows whose other contents come from `seed`. */
  async function logitsOf(
    batch: number,
    row: number,
    seed: number,
    access: "read" | "frozen" = "read",
  ): Promise<Float32Array> {
    const layout = tinyLayout(GPT);
    const params = engine.createArena(layout, tinyParams(layout, 1, 0.1));
    const cache = engine.createArena(cacheLayout(GPT, batch, SLOTS));
    const decode = await engine.compile(decodeProgram(batch, access));
    const random = new TestRandom(seed);
    const offsets = random.ints(batch, SLOTS - 6);
    let logits = new Float32Array();
    for (let step = 0; step < 5; step++) {
      const ids = random.ints(batch, GPT.vocabulary);
      const lengths = offsets.map((offset) => offset + step);
      ids[row] = (step * 37 + 5) % GPT.vocabulary;
      lengths[row] = step;
      const result = await decode.run({ params, cache }, { ids, lengths });
      logits = (result.logits as Float32Array).slice(row * GPT.vocabulary, (row + 1) * GPT.vocabulary);
    }
    return logits;
  }

  it("gives a row the same bits whatever the other rows hold, at any position, for 1 to 16 rows", async () => {
    const alone = await logitsOf(1, 0, 0);
    expect(alone.length).toBe(GPT.vocabulary);
    for (const batch of [2, 3, 4, 5, 8, 13, 16]) {
      for (const [row, seed] of [
        [0, 1],
        [batch - 1, 2],
      ]) {
        expectIdentical(
          { [`row ${row} of ${batch}`]: await logitsOf(batch, row, seed) },
          { [`row ${row} of ${batch}`]: alone },
        );
      }
    }
  });

  it("with frozen weights, for any number of rows", async () => {
    const alone = await logitsOf(1, 0, 0, "frozen");
    for (const batch of [2, 7, 16, 17, 32, 47, 64]) {
      for (const [row, seed] of [
        [0, 1],
        [batch - 1, 2],
      ]) {
        expectIdentical(
          { [`row ${row} of ${batch}`]: await logitsOf(batch, row, seed, "frozen") },
          { [`row ${row} of ${batch}`]: alone },
        );
      }
    }
  });
});
