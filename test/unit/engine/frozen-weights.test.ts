import type { Tensor } from "@tensorflow/tfjs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Arena, Engine, Program } from "../../../src/engine/engine.js";
import { frozenBytes, type FrozenArena } from "../../../src/engine/frozen-weights.js";
import { makeLayout } from "../../../src/engine/layout.js";
import { createOnnxEngine } from "../../../src/engine/onnx/onnx-engine.js";
import { embedding, headLogprobs, linear } from "../../../src/engine/ops.js";
import { frozenForm } from "../../../src/models/frozen.js";
import { freshGpt2Spec, layoutOf, withHead } from "../../../src/models/model-spec.js";
import { Scorer, type Replica, type ScorableSequence } from "../../../src/rollout/scorer.js";

/** 72 inputs: no block divides them, so the last block of 32 is filled up. */
const [rows, wide, odd, outputs] = [6, 128, 72, 40];
const layout = makeLayout({
  bias: [outputs],
  conv: [wide, outputs],
  table: [50, odd],
});
const form = { matrices: { conv: { isOutIn: false }, table: { isOutIn: true } } };
const wave = (length: number, step: number) =>
  Float32Array.from({ length }, (_, i) => Math.sin(i * step) * 0.3);
const inputs = {
  x: wave(rows * wide, 0.37),
  z: wave(rows * odd, 0.71),
  ids: Int32Array.from([3, 0, 49, 7, 7, 12]),
};

const program = (key: string, held: boolean): Program => ({
  key,
  arenas: { a: held ? { layout, access: "frozen", form } : { layout, access: "read" } },
  inputs: {
    x: { shape: [rows, wide], dtype: "float32" },
    z: { shape: [rows, odd], dtype: "float32" },
    ids: { shape: [rows], dtype: "int32" },
  },
  body: ({ a }, { x, z, ids }) => ({
    outputs: {
      product: linear(x, a.conv, a.bias),
      rows: embedding(a.table, ids),
      logprobs: headLogprobs(z, a.table, ids, 0.5).logprobs as Tensor,
    },
  }),
});

let engine: Engine;
beforeAll(async () => {
  engine = await createOnnxEngine({ threads: 1 });
});
afterAll(() => engine.dispose());

const frozen = (): FrozenArena => engine.createFrozenArena!(layout, form) as FrozenArena;
const relativeError = (a: ArrayLike<number>, b: ArrayLike<number>) => {
  const size = (values: number[]) => Math.sqrt(values.reduce((sum, x) => sum + x * x, 0));
  return size(Array.from(a, (x, i) => x - b[i])) / size(Array.from(b));
};

describe("matrices held as int8", () => {
  it("are off by at most half a step of their block, and exact where nothing was rounded", async () => {
    const arena = frozen();
    const values = wave(layout.size, 0.9);
    await arena.write(values);
    const read = await arena.read();
    for (const { name, offset, size } of layout.entries) {
      for (let i = offset; i < offset + size; i++) {
        if (name === "bias") expect(read[i]).toBe(values[i]);
        else expect(Math.abs(read[i] - values[i])).toBeLessThan((0.3 / 127 / 2) * 1.001);
      }
    }
    const again = frozen();
    await again.write(read);
    expect(relativeError(await again.read(), read)).toBeLessThan(1e-6);
  });

  it("give the products, rows and log-probabilities of the rounded matrices within int8 rounding of x", async () => {
    const [arena, plain] = [frozen(), engine.createArena(layout)];
    await arena.write(wave(layout.size, 0.9));
    await plain.write(await arena.read());
    const got = await engine.compile(program("held", true)).then((run) => run.run({ a: arena }, inputs));
    const want = await engine.compile(program("plain", false)).then((run) => run.run({ a: plain }, inputs));
    expect(relativeError(got.rows, want.rows)).toBeLessThan(1e-6);
    expect(relativeError(got.product, want.product)).toBeLessThan(1e-2);
    expect(relativeError(got.product, want.product)).toBeGreaterThan(1e-6); // integers were multiplied
    expect(relativeError(got.logprobs, want.logprobs)).toBeLessThan(5e-3);
  });

  it("are computed with as they are after the last write", async () => {
    const arena = frozen();
    const executable = await engine.compile(program("rewritten", true));
    await arena.write(wave(layout.size, 0.9));
    const { product } = await executable.run({ a: arena }, inputs);
    await arena.write(wave(layout.size, 0.9).map((x) => 2 * x));
    expect(relativeError((await executable.run({ a: arena }, inputs)).product, product.map((x) => 2 * x))).toBeLessThan(1e-6); // prettier-ignore
  });

  it("are refused by a program that was made for float32", async () => {
    const executable = await engine.compile(program("plain", false));
    await expect(executable.run({ a: frozen() as Arena }, inputs)).rejects.toMatchObject({
      message: expect.stringContaining("its arena holds int8") as string,
    });
  });
});

describe("a frozen model held as int8", () => {
  const base = freshGpt2Spec({
    ...{ head: "lm", layers: 2, hidden: 128, heads: 4, contextTokens: 50, vocabularySize: 300 },
    ...{ eosTokenId: 0, padTokenId: 1 },
  });
  const replica = async (spec: typeof base, isHeld: boolean): Promise<Replica> => {
    const own = layoutOf(spec);
    const params = isHeld ? engine.createFrozenArena!(own, frozenForm(spec)) : engine.createArena(own);
    const values = wave(own.size, 12.9898).map((x) => 0.05 * (((x * 145927) % 1) + 0.01));
    for (const { name, offset, size } of own.entries)
      if (/ln_\w+\.weight$/.test(name)) values.fill(1, offset, offset + size);
    await params.write(values);
    return { spec, params, ...(isHeld ? { form: frozenForm(spec) } : {}) };
  };
  /** Up to the whole context, whose passes hold an uneven number of positions. */
  const sequences: ScorableSequence[] = Array.from({ length: 9 }, (_, i) => ({
    promptIds: Int32Array.from({ length: 3 + i }, (_, t) => (7 * t + i) % 300),
    responseIds: Int32Array.from({ length: Math.min(47 - i, 8 + 6 * i) }, (_, t) => (11 * t + 3 * i) % 300),
  }));

  it("takes 1.03 bytes per matrix element", () => {
    const own = layoutOf(base);
    const inMatrices = Object.keys(frozenForm(base).matrices).reduce(
      (n, name) => n + own.byName.get(name)!.size,
      0,
    );
    expect(inMatrices).toBeGreaterThan(0.9 * own.size);
    const others = 4 * (own.size - inMatrices);
    expect((frozenBytes(own, frozenForm(base)) - others) / inMatrices).toBeCloseTo(1 + 4 / 128, 6);
  });

  it("gives every sequence the same bits alone, together and in any order", async () => {
    const scorer = new Scorer(engine);
    for (const head of ["lm", "scalar"] as const) {
      const model = await replica(withHead(base, head), true);
      const judge = (list: readonly ScorableSequence[]): Promise<(Float32Array | number)[]> =>
        head === "lm" ? scorer.logprobs(model, list, 0.7) : scorer.scores(model, list);
      const together = await judge(sequences);
      expect((await judge([...sequences].reverse())).reverse()).toEqual(together);
      for (const [i, sequence] of sequences.entries())
        expect((await judge([sequence]))[0]).toEqual(together[i]);
    }
  });

  it("moves log-probabilities by 0.02 on average", async () => {
    const scorer = new Scorer(engine);
    const held = await scorer.logprobs(await replica(base, true), sequences, 1);
    const exact = await scorer.logprobs(await replica(base, false), sequences, 1);
    const gaps = held.flatMap((row, i) => Array.from(row, (x, t) => Math.abs(x - exact[i][t])));
    const mean = gaps.reduce((sum, gap) => sum + gap, 0) / gaps.length;
    expect(mean).toBeLessThan(0.02);
    expect(mean).toBeGreaterThan(0);
  });
});
