import * as tf from "@tensorflow/tfjs";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { describe, expect, it } from "vitest";
import { createEngine } from "../../src/engine/create-engine.js";
import type { Engine } from "../../src/engine/engine.js";
import { makeAdamwProgram } from "../../src/engine/optim.js";
import { TINY, tinyLayout, tinyParams } from "../unit/engine/tiny-gpt.js";
import { gradientProgram, trainingInputs } from "../unit/engine/training-programs.js";
import { missing } from "./native-library.js";

const WARM_UP = 200;
const STEPS = 1000;
/** The allocators' noise. A leaked copy of the gradients in each step after the warm-up would be 85 MiB. */
const RSS_SLACK_BYTES = 24 * 2 ** 20;
const TIMEOUT_MS = 600_000;

const ADAMW = { beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0.1, clipNorm: 1 };

setFlagsFromString("--expose-gc");
const collectGarbage = runInNewContext("gc") as () => void;

function footprint() {
  collectGarbage();
  const { numTensors, numDataBuffers } = tf.memory();
  return { numTensors, numDataBuffers, rss: process.memoryUsage().rss };
}

/** What a learner does in a step: clear, gradient, the read and write around an all-reduce, AdamW. */
async function openTraining(engine: Engine) {
  const layout = tinyLayout(TINY);
  const params = engine.createArena(layout, tinyParams(layout));
  const [grads, m, v] = [0, 1, 2].map(() => engine.createArena(layout));
  const gradient = await engine.compile(gradientProgram("ppo"));
  const adamw = await engine.compile(makeAdamwProgram(layout, ADAMW));
  const arenas = { params, grads, m, v };
  return {
    tensorCount: Object.keys(arenas).length * layout.entries.length,
    async step(number: number): Promise<number> {
      await grads.clear();
      await gradient.run({ params, grads }, trainingInputs(number));
      await grads.write((await grads.read()).map((x) => x / 2));
      const scalars = { learningRate: Float32Array.of(1e-3), step: Float32Array.of(number) };
      return (await adamw.run(arenas, scalars)).gradNorm[0];
    },
    dispose: () => Object.values(arenas).forEach((arena) => arena.dispose()),
  };
}

describe("tensorflow", () => {
  if (missing !== null) {
    it.skip(`trains without leaks (skipped: ${missing})`, () => {});
    return;
  }

  it(
    `owns as many tensors, and as much memory, after ${STEPS} steps as after ${WARM_UP}`,
    async () => {
      const { engine } = await createEngine({ name: "tensorflow", threads: 1 });
      const empty = tf.memory().numTensors;
      const training = await openTraining(engine);
      for (let i = 1; i <= WARM_UP; i++) await training.step(i);
      const before = footprint();
      for (let i = WARM_UP + 1; i <= STEPS; i++) expect(await training.step(i)).toBeGreaterThan(0);
      const after = footprint();

      expect(before.numTensors - empty).toBe(training.tensorCount);
      expect(after.numTensors).toBe(before.numTensors);
      expect(after.numDataBuffers).toBe(before.numDataBuffers);
      expect(after.rss - before.rss).toBeLessThan(RSS_SLACK_BYTES);
      training.dispose();
      expect(tf.memory().numTensors).toBe(empty);
      await engine.dispose();
    },
    TIMEOUT_MS,
  );
});
