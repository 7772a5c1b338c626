// Trains a tiny GPT-2 on the tensorflow engine and prints, after the steps named, what the process holds: one JSON line
// each. A process of its own, because a test runner's heap grows by more than what is looked for.
//   node --expose-gc test/gpu/training-steps.mjs 200 1000
import * as tf from "@tensorflow/tfjs";
import { createEngine } from "../../dist/src/engine/create-engine.js";
import { makeAdamwProgram } from "../../dist/src/engine/optim.js";
import { laySft } from "../../dist/src/learner/packed-rows.js";
import { makeLmGradProgram } from "../../dist/src/learner/programs.js";
import { layoutOf, parseModelConfig } from "../../dist/src/models/model-spec.js";

const sampleAfter = process.argv.slice(2).map(Number);
const [rows, length] = [2, 12];
const spec = parseModelConfig(
  {
    ...{ model_type: "gpt2", n_layer: 2, n_embd: 32, n_head: 4, vocab_size: 61, n_positions: 16 },
    ...{ activation_function: "gelu_new", layer_norm_epsilon: 1e-5 },
  },
  "lm",
);
const layout = layoutOf(spec);
const { engine } = await createEngine({ name: "tensorflow", threads: 1 });
const values = Float32Array.from({ length: layout.size }, (_, i) => Math.sin(i) * 0.1);
const params = engine.createArena(layout, values);
const [grads, m, v] = [0, 1, 2].map(() => engine.createArena(layout));
const sequences = Array.from({ length: rows }, (_, row) => ({
  ids: Int32Array.from({ length }, (_, i) => (7 * (row * length + i)) % 61),
  lossMask: new Uint8Array(length).fill(1),
}));
const [{ shape, ...run }] = laySft(sequences, { budgetTokens: 64, hidden: 32, contextTokens: 16, padId: 0 });
const gradient = await engine.compile(makeLmGradProgram(spec, shape, 1));
const adamw = await engine.compile(
  makeAdamwProgram(layout, { beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0.1, clipNorm: 1 }),
);
const report = (step, loss) => {
  globalThis.gc();
  const { numTensors, numDataBuffers } = tf.memory();
  const { rss } = process.memoryUsage();
  console.log(JSON.stringify({ step, loss, numTensors, numDataBuffers, rss, parameters: layout.size }));
};

report(0, null);
for (let step = 1; step <= Math.max(...sampleAfter); step++) {
  await grads.clear();
  const inputs = {
    ...{ ids: run.ids, starts: run.starts, at: run.at, labels: run.labels, mask: run.mask },
    denominator: Float32Array.of(rows * (length - 1)),
  };
  const { loss } = await gradient.run({ params, grads }, inputs);
  await grads.write((await grads.read()).map((x) => x / 2)); // as around an all-reduce
  const scalars = { learningRate: Float32Array.of(1e-3), step: Float32Array.of(step) };
  await adamw.run({ params, grads, m, v }, scalars);
  if (sampleAfter.includes(step)) report(step, loss[0]);
}
for (const arena of [params, grads, m, v]) arena.dispose();
report("end", null);
