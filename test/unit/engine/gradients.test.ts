import * as tf from "@tensorflow/tfjs";
import type { Tensor } from "@tensorflow/tfjs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Engine, Program } from "../../../src/engine/engine.js";
import { valueAndGradients } from "../../../src/engine/gradients.js";
import { makeLayout, viewOf } from "../../../src/engine/layout.js";
import { openReference, enginesUnderTest } from "./engines.js";
import { opCases, opProgram } from "./op-cases.js";
import { TestRandom } from "./random.js";

/** Fused ops whose hand-written gradients are the easiest to get subtly wrong. */
const CHECKED = ["layerNorm", "qkvAttention", "headLogprobs at temperature 0.7"];

describe("gradients of the onnx engine", () => {
  let engine: Engine;
  beforeAll(async () => {
    engine = await enginesUnderTest[0].open(1);
  });
  afterAll(() => engine.dispose());

  it.each(CHECKED)("of %s agree with finite differences", async (title) => {
    const op = opCases.find((candidate) => candidate.title === title)!;
    const program = opProgram(op);
    const { layout } = program.arenas.params;
    const executable = await engine.compile(program);
    const random = new TestRandom(11);
    const values = random.floats(layout.size);
    const ints = Object.fromEntries(
      Object.entries(op.ints ?? {}).map(([name, { shape, below }]) => [
        name,
        random.ints(
          shape.reduce((a, b) => a * b, 1),
          below,
        ),
      ]),
    );
    const lossAt = async (at: Float32Array) => {
      const { y } = await executable.run({ params: engine.createArena(layout, at) }, ints);
      return (y as Float32Array).reduce((sum, value, i) => sum + value * Math.sin(1.3 * i + 0.4), 0);
    };
    const result = await executable.run({ params: engine.createArena(layout, values) }, ints);
    for (const { name, offset, size } of layout.entries) {
      for (const index of [0, Math.floor(size / 2), size - 1]) {
        const h = 1e-2; // float32 noise / h and h² truncation are both below the tolerance
        const moved = (by: number) => values.map((value, i) => (i === offset + index ? value + by : value));
        const slope = ((await lossAt(moved(h))) - (await lossAt(moved(-h)))) / (2 * h);
        const gradient = result[`d${name}`][index];
        expect(Math.abs(gradient - slope), `d${name}[${index}]`).toBeLessThan(
          2e-3 * Math.max(1, Math.abs(slope)),
        );
      }
    }
  });
});

describe("valueAndGradients", () => {
  let engine: Engine;
  beforeAll(async () => {
    engine = await openReference(1);
  });
  afterAll(() => engine.dispose());

  const layout = makeLayout({ a: [2], unused: [3] });
  const run = async (body: Program["body"]) => {
    const program: Program = {
      key: `gradients ${String(body)}`,
      arenas: { p: { layout, access: "read" } },
      inputs: {},
      body,
    };
    return (await engine.compile(program)).run(
      { p: engine.createArena(layout, Float32Array.of(2, 3, 1, 1, 1)) },
      {},
    );
  };

  it("keeps metrics of the forward pass, and gives zeros for parameters the loss does not use", async () => {
    const outputs = await run(({ p }) => {
      const { loss, aux, grads } = valueAndGradients(p, ({ a }) => {
        const square = tf.square(a);
        return { loss: tf.sum(square), aux: { square, same: a } };
      });
      return { outputs: { loss, ...aux, da: grads.a, dunused: grads.unused } };
    });
    expect(outputs).toEqual({
      loss: Float32Array.of(13),
      square: Float32Array.of(4, 9),
      same: Float32Array.of(2, 3),
      da: Float32Array.of(4, 6),
      dunused: Float32Array.of(0, 0, 0),
    });
  });

  it("frees what it kept when the program ends", async () => {
    const before = tf.memory().numTensors;
    await run(({ p }) => {
      const { aux } = valueAndGradients(p, ({ a }) => ({
        loss: tf.sum(a),
        aux: { b: tf.mul(a, 2) as Tensor },
      }));
      return { outputs: { b: aux.b } };
    });
    expect(tf.memory().numTensors).toBe(before);
  });

  it("reads views of the layout that the arena has", () => {
    expect([...viewOf(layout, Float32Array.of(1, 2, 3, 4, 5), "unused")]).toEqual([3, 4, 5]);
  });
});
