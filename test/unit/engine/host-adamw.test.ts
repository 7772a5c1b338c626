import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Engine } from "../../../src/engine/engine.js";
import { adamwOnHost, gradientNorm } from "../../../src/engine/host-adamw.js";
import { HostArena } from "../../../src/engine/host-arena.js";
import { makeLayout } from "../../../src/engine/layout.js";
import { makeAdamwProgram } from "../../../src/engine/optim.js";
import { VectorPool } from "../../../src/engine/vector-pool.js";
import { adamwInPlace } from "../../../src/engine/wasm/vector-kernels.js";
import { openReference } from "./engines.js";

/** Longer than two blocks, and not a multiple of a vector. */
const LENGTH = 2 * 8192 + 5;
const wave = (frequency: number, size: number) => (length: number) =>
  Float32Array.from({ length }, (_, i) => size * Math.sin(frequency * i + 1));

const scalars = {
  gradScale: 0.37,
  beta1: 0.9,
  beta2: 0.999,
  decay: 0.9999,
  stepSize: 1.3e-3,
  correction: 3.3,
  epsilon: 1e-8,
};

describe("vector kernels", () => {
  it("round as float32 arithmetic does, element by element, up to the end and no further", () => {
    const state = {
      param: wave(0.7, 1)(LENGTH + 3),
      grad: wave(1.3, 0.01)(LENGTH + 3),
      m: wave(0.3, 0.01)(LENGTH + 3),
      v: wave(0.9, 0.01)(LENGTH + 3).map((x) => x * x),
    };
    const f = Math.fround;
    const [beta1, rest1, beta2, rest2] = [0.9, 1 - 0.9, 0.999, 1 - 0.999].map(f);
    const expected = { param: state.param.slice(), m: state.m.slice(), v: state.v.slice() };
    for (let i = 0; i < LENGTH; i++) {
      const g = f(state.grad[i] * f(scalars.gradScale));
      expected.m[i] = f(state.m[i] * beta1) + f(g * rest1);
      expected.v[i] = f(state.v[i] * beta2) + f(f(g * g) * rest2);
      const denominator = f(f(f(Math.sqrt(expected.v[i])) * f(scalars.correction)) + f(scalars.epsilon));
      const step = f(f(expected.m[i] / denominator) * f(scalars.stepSize));
      expected.param[i] = f(state.param[i] * f(scalars.decay)) - step;
    }
    const part = (values: Float32Array) => values.subarray(0, LENGTH);
    adamwInPlace(
      { param: part(state.param), grad: part(state.grad), m: part(state.m), v: part(state.v) },
      scalars,
    );
    expect(state.param).toEqual(expected.param);
    expect(state.m).toEqual(expected.m);
    expect(state.v).toEqual(expected.v);
  });

  it("sum squares in float64, counting every element once", async () => {
    const pool = VectorPool.open();
    const values = wave(1.1, 3)(LENGTH);
    const expected = values.reduce((sum, value) => sum + value * value, 0);
    expect(await pool.sumOfSquares(values)).toBeCloseTo(expected, 7);
    expect(await pool.sumOfSquares(Float32Array.of(3, 4, 12))).toBe(169);
    expect(await gradientNorm(Float32Array.of(1, NaN), pool)).toBeNaN();
    expect(await gradientNorm(Float32Array.of(1e25), pool)).toBe(Infinity);
  });

  it("give the same bits on one thread and on three", async () => {
    const length = 3 * (1 << 18) + 5;
    const [one, three] = [VectorPool.open(1), VectorPool.open(3)];
    const run = async (pool: VectorPool) => {
      const vector = (values: Float32Array) => {
        const memory = pool.allocate(length);
        memory.set(values);
        return memory;
      };
      const vectors = {
        param: vector(wave(0.7, 1)(length)),
        grad: vector(wave(1.3, 0.01)(length)),
        m: vector(wave(0.3, 0.01)(length)),
        v: vector(wave(0.9, 0.01)(length).map((x) => x * x)),
      };
      const before = vectors.param.at(-1);
      await pool.adamw(vectors, scalars);
      expect(vectors.param.at(-1)).not.toBe(before);
      return { ...vectors, squares: await pool.sumOfSquares(vectors.grad) };
    };
    const [expected, got] = [await run(one), await run(three)];
    expect(got.param.buffer).toBeInstanceOf(SharedArrayBuffer);
    expect(Buffer.from(got.param.buffer).equals(Buffer.from(expected.param.buffer))).toBe(true);
    expect(Buffer.from(got.m.buffer).equals(Buffer.from(expected.m.buffer))).toBe(true);
    expect(Buffer.from(got.v.buffer).equals(Buffer.from(expected.v.buffer))).toBe(true);
    expect(got.squares).toBe(expected.squares);
    await Promise.all([one.close(), three.close()]);
  });
});

describe("AdamW on host memory", () => {
  let reference: Engine;
  beforeAll(async () => {
    reference = await openReference(1);
  });
  afterAll(() => reference.dispose());

  const pool = VectorPool.open();
  const layout = makeLayout({ a: [3], b: [4, 5], c: [2], d: [7, 3], e: [2, 2] });
  const options = { beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0.3, clipNorm: 0.5 };

  it("takes the steps of the program, decaying the same tensors", async () => {
    const start = wave(0.4, 1)(layout.size);
    const host = [start, undefined, undefined].map((values) => new HostArena(layout, values));
    const device = [start, undefined, undefined].map((values) => reference.createArena(layout, values));
    const grads = reference.createArena(layout);
    const program = await reference.compile(makeAdamwProgram(layout, options));
    for (let step = 1; step <= 3; step++) {
      const gradient = wave(step, 1)(layout.size);
      const norm = await gradientNorm(gradient, pool);
      const [params, m, v] = host;
      const scalars = { learningRate: 0.01, step };
      const isDone = await adamwOnHost({ params, m, v }, gradient, norm, scalars, options, pool);
      expect(isDone).toBe(true);
      await grads.write(gradient);
      const [deviceParams, deviceM, deviceV] = device;
      const { gradNorm } = await program.run(
        { params: deviceParams, grads, m: deviceM, v: deviceV },
        { learningRate: Float32Array.of(0.01), step: Float32Array.of(step) },
      );
      expect(norm).toBeCloseTo(gradNorm[0], 5);
    }
    for (const [i, arena] of host.entries()) {
      const expected = await device[i].read();
      arena.values.forEach((value, j) => expect(value).toBeCloseTo(expected[j], 6));
    }
  });

  it("leaves state that is on a device to the program", async () => {
    const [params, m, v] = [0, 1, 2].map(() => ({ ...new HostArena(layout) }) as unknown as HostArena);
    const gradient = new Float32Array(layout.size);
    const scalars = { learningRate: 1, step: 1 };
    expect(await adamwOnHost({ params, m, v }, gradient, 0, scalars, options, pool)).toBe(false);
  });
});
