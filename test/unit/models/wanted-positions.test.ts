import * as tf from "@tensorflow/tfjs";
import type { Tensor } from "@tensorflow/tfjs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createOnnxEngine } from "../../../src/engine/onnx/onnx-engine.js";
import { createReferenceEngine } from "../../../src/engine/reference.js";
import type { Arena, Engine, Tensors } from "../../../src/engine/engine.js";
import { valueAndGradients } from "../../../src/engine/gradients.js";
import { embedding } from "../../../src/engine/ops.js";
import { decoderOf } from "../../../src/models/decoders.js";
import { packedPass, type Recompute } from "../../../src/models/forward-pass.js";
import { hiddenStatesAt, specKey } from "../../../src/models/forward.js";
import { initParams, layoutOf, type ModelSpec } from "../../../src/models/model-spec.js";
import { CONFIGS, plainSpec, VOCABULARY } from "../lora/models.js";

const [ROWS, LENGTH] = [2, 8];
/** Out of order, one of them twice. */
const AT = Int32Array.of(13, 2, 6, 2, 15);
const IDS = Int32Array.from({ length: ROWS * LENGTH }, (_, i) => (i * 7) % VOCABULARY);
/** Row 0 holds sequences of 3 and 5 tokens, row 1 one of 8. */
const STARTS = Int32Array.from(IDS, (_, i) => (i >= 3 && i < LENGTH ? 3 : 0));

type HiddenAt = (spec: ModelSpec, params: Tensors, pass: ReturnType<typeof packedPass>, at: Tensor) => Tensor;
const fromAll: HiddenAt = (spec, params, pass, at) => embedding(decoderOf(spec)(spec, params, pass), at);

/** Σ w·hidden over the listed positions, differently for each of them, and its gradient. */
async function lossAndGradient(
  engine: Engine,
  spec: ModelSpec,
  params: Arena,
  [name, hiddenAt]: readonly [string, HiddenAt],
  recompute: Recompute = "none",
) {
  const layout = layoutOf(spec);
  const grads = engine.createArena(layout);
  const program = await engine.compile({
    key: `${name} ${recompute} ${specKey(spec)}`,
    arenas: { params: { layout, access: "read" }, grads: { layout, access: "update" } },
    inputs: {
      ids: { shape: [ROWS, LENGTH], dtype: "int32" },
      starts: { shape: [ROWS, LENGTH], dtype: "int32" },
      at: { shape: [AT.length], dtype: "int32" },
    },
    body: (arenas, { ids, starts, at }) => {
      const width = spec.embeddingSize;
      const weights = tf.reshape(tf.range(1, 1 + AT.length * width), [AT.length, width]);
      const result = valueAndGradients(arenas.params, (current) => {
        const hidden = hiddenAt(spec, current, packedPass(ids, starts, recompute), at);
        return { loss: tf.sum(tf.mul(tf.sin(weights), hidden)), aux: { hidden } };
      });
      return { outputs: result.aux, updates: { grads: result.grads } };
    },
  });
  const { hidden } = await program.run({ params, grads }, { ids: IDS, starts: STARTS, at: AT });
  return { hidden, gradient: (await grads.read()).slice() };
}

const farthest = (a: ArrayLike<number>, b: ArrayLike<number>): number =>
  Array.from(a).reduce((most, x, i) => Math.max(most, Math.abs(x - b[i]) / Math.max(1, Math.abs(b[i]))), 0);

describe.each([
  ["reference", async () => createReferenceEngine()],
  ["onnx", () => createOnnxEngine()],
] as const)("hidden states of listed positions on %s", (_name, create) => {
  let engine: Engine;
  beforeAll(async () => void (engine = await create()));
  afterAll(() => engine.dispose());

  it.each(Object.keys(CONFIGS))(
    "%s: they and their gradient are those of a whole last layer",
    async (family) => {
      const spec = plainSpec(family);
      const params = engine.createArena(layoutOf(spec), initParams(spec, 5));
      const whole = await lossAndGradient(engine, spec, params, ["all", fromAll]);
      for (const recompute of ["none", "layers"] as const) {
        const listed = await lossAndGradient(engine, spec, params, ["listed", hiddenStatesAt], recompute);
        expect(farthest(listed.hidden, whole.hidden)).toBeLessThan(1e-5);
        expect(farthest(listed.gradient, whole.gradient)).toBeLessThan(1e-4);
      }
      expect(whole.gradient.filter((x) => Math.abs(x) > 1e-3).length).toBeGreaterThan(
        whole.gradient.length / 4,
      );
    },
  );
});
