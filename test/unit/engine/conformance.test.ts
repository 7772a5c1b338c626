import * as tf from "@tensorflow/tfjs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Engine, HostArrays, Program } from "../../../src/engine/engine.js";
import { makeLayout, viewOf } from "../../../src/engine/layout.js";
import { makeAdamwProgram } from "../../../src/engine/optim.js";
import { expectClose, relativeError } from "./closeness.js";
import { enginesUnderTest, openReference } from "./engines.js";
import { opCases, opProgram, type OpCase } from "./op-cases.js";
import { TestRandom } from "./random.js";
import {
  cacheLayout,
  TINY,
  tinyDecode,
  tinyHidden,
  tinyLayout,
  tinyParams,
  tinyPrefill,
} from "./tiny-gpt.js";
import { gradientProgram, trainingInputs } from "./training-programs.js";

const ADAMW = { beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0.1 };

async function runOp(engine: Engine, op: OpCase): Promise<HostArrays> {
  const random = new TestRandom(7);
  const program = opProgram(op);
  const { layout } = program.arenas.params;
  const arena = engine.createArena(layout, random.floats(layout.size));
  const ints = Object.entries(op.ints ?? {}).map(
    ([name, { shape, below }]) =>
      [
        name,
        random.ints(
          shape.reduce((a, b) => a * b, 1),
          below,
        ),
      ] as const,
  );
  return (await engine.compile(program)).run({ params: arena }, Object.fromEntries(ints));
}

/** Sum of three microbatches' gradients, and what each returned. */
async function accumulate(engine: Engine, loss: "cross-entropy" | "ppo"): Promise<HostArrays> {
  const layout = tinyLayout(TINY);
  const params = engine.createArena(layout, tinyParams(layout));
  const grads = engine.createArena(layout);
  const gradient = await engine.compile(gradientProgram(loss));
  const outputs: HostArrays[] = [];
  for (const seed of [3, 4, 5]) outputs.push(await gradient.run({ params, grads }, trainingInputs(seed)));
  const summed = await grads.read();
  // Whole key biases are left out: their true gradient is 0, so what is there is rounding.
  const byName = layout.entries
    .filter(({ name }) => !name.endsWith("qkv.b"))
    .map(({ name }) => [`grad ${name}`, viewOf(layout, summed, name)] as const);
  const named = outputs.flatMap((o, i) => Object.entries(o).map(([name, x]) => [`${name} ${i}`, x] as const));
  return Object.fromEntries([...byName, ...named]);
}

/** Three AdamW steps on given gradients. */
async function optimize(engine: Engine, clipNorm: number): Promise<HostArrays> {
  const layout = tinyLayout(TINY);
  const params = engine.createArena(layout, tinyParams(layout));
  const [grads, m, v] = [0, 1, 2].map(() => engine.createArena(layout));
  const adamw = await engine.compile(makeAdamwProgram(layout, { ...ADAMW, clipNorm }));
  const norms: number[] = [];
  for (const step of [1, 2, 3]) {
    await grads.write(new TestRandom(step).floats(layout.size, 0.1));
    const scalars = { learningRate: Float32Array.of(1e-2 / step), step: Float32Array.of(step) };
    norms.push((await adamw.run({ params, grads, m, v }, scalars)).gradNorm[0]);
  }
  return {
    params: (await params.read()).slice(),
    m: (await m.read()).slice(),
    v: (await v.read()).slice(),
    norms: Float32Array.from(norms),
  };
}

describe.each(enginesUnderTest)("engine $title", ({ missing, open }) => {
  if (missing !== null) {
    it.skip(`conforms (skipped: ${missing})`, () => {});
    return;
  }
  let engine: Engine;
  let reference: Engine;
  beforeAll(async () => {
    engine = await open(1);
    reference = await openReference(1);
  });
  afterAll(async () => {
    await engine.dispose();
    await reference.dispose();
  });

  it.each(opCases)("computes $title and its gradients as the reference does", async (op) => {
    expectClose(await runOp(engine, op), await runOp(reference, op));
  });

  it.each(["cross-entropy", "ppo"] as const)(
    "accumulates the %s gradients of a two-layer model over three microbatches in an arena",
    async (loss) => {
      expectClose(await accumulate(engine, loss), await accumulate(reference, loss));
    },
  );

  it.each([0.5, 0])("applies three AdamW steps with clip norm %d", async (clipNorm) => {
    expectClose(await optimize(engine, clipNorm), await optimize(reference, clipNorm), 1e-6);
  });

  it("clamps labels outside the vocabulary instead of failing", async () => {
    const op = opCases.find(({ title }) => title.startsWith("headLogprobs"))!;
    const program = opProgram(op);
    const { layout } = program.arenas.params;
    const values = new TestRandom(1).floats(layout.size);
    const executable = await engine.compile(program);
    const arena = engine.createArena(layout, values);
    const clamped = await executable.run({ params: arena }, { labels: Int32Array.of(0, 1, 2, 3, 10, 0) });
    const outside = await executable.run({ params: arena }, { labels: Int32Array.of(0, 1, 2, 3, 999, -100) });
    expect(outside.y).toEqual(clamped.y);
  });

  it("decodes token by token what a full forward pass computes, with rows of different lengths", async () => {
    const rows = 3;
    const slots = 12;
    const prompt = 5;
    const lengths = [5, 2, 4]; // real prompt tokens; the rest of a prompt row is padding
    const steps = 6;
    const layout = tinyLayout(TINY);
    const params = engine.createArena(layout, tinyParams(layout));
    const cacheArena = engine.createArena(cacheLayout(TINY, rows, slots));
    const ids = new TestRandom(9).ints(rows * slots, TINY.vocabulary);
    const token = (row: number, position: number) => ids[row * slots + position];

    const prefill = await engine.compile(prefillProgram(rows, slots, rows, prompt));
    const promptIds = Int32Array.from({ length: rows * prompt }, (_, i) => {
      const [row, position] = [Math.floor(i / prompt), i % prompt];
      return position < lengths[row] ? token(row, position) : 0;
    });
    const arenas = { params, cache: cacheArena };
    const first = await prefill.run(arenas, { ids: promptIds, rows: Int32Array.of(0, 1, 2) });

    const full = await engine.compile(forwardProgram(rows, slots));
    const expected = (await full.run({ params }, { ids })).logits;
    const expectedAt = (row: number, position: number) => {
      const start = (row * slots + position) * TINY.vocabulary;
      return expected.subarray(start, start + TINY.vocabulary);
    };
    const rowOf = (logits: ArrayLike<number>, index: number) =>
      Array.from({ length: TINY.vocabulary }, (_, i) => logits[index * TINY.vocabulary + i]);

    lengths.forEach((length, row) => {
      const got = rowOf(first.logits, row * prompt + length - 1);
      expect(relativeError(got, expectedAt(row, length - 1))).toBeLessThanOrEqual(1e-5);
    });
    const decode = await engine.compile(decodeProgram(rows, slots));
    for (let step = 0; step < steps; step++) {
      const at = Int32Array.from(lengths, (length) => length + step);
      const { logits } = await decode.run(arenas, {
        ids: Int32Array.from(at, (p, row) => token(row, p)),
        lengths: at,
      });
      at.forEach((position, row) => {
        expect(relativeError(rowOf(logits, row), expectedAt(row, position))).toBeLessThanOrEqual(1e-5);
      });
    }
  });

  it("runs on the newest values of a frozen arena, whoever wrote them", async () => {
    const layout = makeLayout({ w: [3, 2] });
    const use = (access: "frozen" | "update") => ({ arena: { layout, access } });
    const x = tf.tensor2d([1, 2, 3], [1, 3]);
    const product = await engine.compile({
      key: "frozen product",
      arenas: use("frozen"),
      inputs: {},
      body: ({ arena }) => ({ outputs: { y: tf.matMul(x, arena.w) } }),
    });
    const doubling = await engine.compile({
      key: "doubling",
      arenas: use("update"),
      inputs: {},
      body: ({ arena }) => ({ outputs: {}, updates: { arena: { w: tf.mul(arena.w, 2) } } }),
    });
    const arena = engine.createArena(layout, Float32Array.of(1, 0, 0, 1, 1, 1));
    const other = engine.createArena(layout, Float32Array.of(0, 0, 0, 0, 0, 1));
    const result = async (of = arena) => [...(await product.run({ arena: of }, {})).y];
    expect(await result()).toEqual([4, 5]);
    await arena.write(Float32Array.of(1, 1, 1, 1, 1, 1));
    expect(await result()).toEqual([6, 6]);
    expect(await result(other)).toEqual([0, 3]);
    await doubling.run({ arena }, {});
    expect(await result()).toEqual([12, 12]);
    await arena.clear();
    expect(await result()).toEqual([0, 0]);
  });

  it("prefills one cache row and leaves the others as they were", async () => {
    const [rows, slots, prompt] = [3, 8, 4];
    const layout = cacheLayout(TINY, rows, slots);
    const before = new TestRandom(2).floats(layout.size);
    const cache = engine.createArena(layout, before);
    const paramLayout = tinyLayout(TINY);
    const params = engine.createArena(paramLayout, tinyParams(paramLayout));
    const prefill = await engine.compile(prefillProgram(rows, slots, 1, prompt));
    await prefill.run({ params, cache }, { ids: Int32Array.of(1, 2, 3, 4), rows: Int32Array.of(1) });
    const after = await cache.read();
    const [, heads, , width] = layout.entries[0].shape;
    for (const { name } of layout.entries) {
      const [was, is] = [viewOf(layout, before, name), viewOf(layout, after, name)];
      for (let i = 0; i < was.length; i++) {
        const row = Math.floor(i / (heads * slots * width));
        const slot = Math.floor(i / width) % slots;
        const isWritten = row === 1 && slot < prompt;
        expect(is[i] === was[i], `${name} row ${row} slot ${slot}`).toBe(!isWritten);
      }
    }
  });

  it("swaps two tensors of an arena although each update overwrites what the other reads", async () => {
    const layout = tinyLayout({ ...TINY, layers: 0 });
    const values = new TestRandom(5).floats(layout.size);
    const arena = engine.createArena(layout, values);
    const swap: Program = {
      key: "swap ln.b and ln.g",
      arenas: { a: { layout, access: "update" } },
      inputs: {},
      body: ({ a }) => ({ outputs: {}, updates: { a: { "ln.b": a["ln.g"], "ln.g": a["ln.b"] } } }),
    };
    const executable = await engine.compile(swap);
    await executable.run({ a: arena }, {});
    const after = await arena.read();
    expect([...viewOf(layout, after, "ln.b")]).toEqual([...viewOf(layout, values, "ln.g")]);
    expect([...viewOf(layout, after, "ln.g")]).toEqual([...viewOf(layout, values, "ln.b")]);
  });

  it("reads the old value everywhere when another output needs it beside its own update", async () => {
    const layout = tinyLayout({ ...TINY, layers: 0 });
    const values = new TestRandom(6).floats(layout.size);
    const arena = engine.createArena(layout, values);
    const program: Program = {
      key: "update with late reader",
      arenas: { a: { layout, access: "update" } },
      inputs: {},
      body: ({ a }) => ({
        outputs: { old: tf.mul(a.wte, 2), transposed: tf.transpose(a.wte), sum: tf.sum(a.wte) },
        updates: { a: { wte: tf.add(a.wte, 1) } },
      }),
    };
    const old = viewOf(layout, values, "wte");
    const result = await (await engine.compile(program)).run({ a: arena }, {});
    expect([...result.old]).toEqual(Array.from(old, (x) => x * 2));
    const updated = viewOf(layout, await arena.read(), "wte");
    expect([...updated]).toEqual(Array.from(old, (x) => Math.fround(x + 1)));
  });

  it("returns booleans as 0 and 1, constants, and inputs passed straight through", async () => {
    const program: Program = {
      key: "odd outputs",
      arenas: {},
      inputs: { x: { shape: [3], dtype: "float32" }, n: { shape: [2], dtype: "int32" } },
      body: (_arenas, { x, n }) => ({
        outputs: { isPositive: tf.greater(x, 0), constant: tf.tensor1d([1.5, 2.5]), x, n, again: x },
      }),
    };
    const inputs = { x: Float32Array.of(-1, 0, 2), n: Int32Array.of(7, 8) };
    const result = await (await engine.compile(program)).run({}, inputs);
    expect(result).toEqual({
      isPositive: Int32Array.of(0, 0, 1),
      constant: Float32Array.of(1.5, 2.5),
      again: inputs.x,
      ...inputs,
    });
  });

  it("keeps an update that is an input as it came when the caller fills that array anew", async () => {
    const layout = makeLayout({ w: [2, 3] });
    const program: Program = {
      key: "store an input",
      arenas: { a: { layout, access: "update" } },
      inputs: { x: { shape: [2, 3], dtype: "float32" } },
      body: (_arenas, { x }) => ({ outputs: {}, updates: { a: { w: x } } }),
    };
    const arena = engine.createArena(layout);
    const x = Float32Array.of(1, 2, 3, 4, 5, 6);
    await (await engine.compile(program)).run({ a: arena }, { x });
    x.fill(9);
    expect([...(await arena.read())]).toEqual([1, 2, 3, 4, 5, 6]);
  });

  it("clears an arena, and refuses values of another length", async () => {
    const arena = engine.createArena(makeLayout({ a: [3], b: [2, 2] }), new TestRandom(3).floats(7));
    await arena.clear();
    expect([...(await arena.read())]).toEqual([0, 0, 0, 0, 0, 0, 0]);
    await expect(arena.write(new Float32Array(6))).rejects.toThrow(/holds 7 values, got 6/);
    expect(() => engine.createArena(arena.layout, new Float32Array(8))).toThrow(/holds 7 values, got 8/);
  });

  it("refuses inputs and arenas that do not fit, naming them", async () => {
    const layout = tinyLayout(TINY);
    const params = engine.createArena(layout);
    const executable = await engine.compile(forwardProgram(1, 4));
    const ids = new Int32Array(4);
    await expect(executable.run({}, { ids })).rejects.toThrow(/needs an arena for "params"/);
    await expect(executable.run({ params }, {})).rejects.toThrow(/needs an input "ids"/);
    await expect(executable.run({ params }, { ids: new Int32Array(5) })).rejects.toThrow(
      /"ids" is \[1, 4\], got 5/,
    );
    await expect(executable.run({ params }, { ids: new Float32Array(4) })).rejects.toThrow(
      /int32.*Float32Array/,
    );
    const other = engine.createArena(cacheLayout(TINY, 1, 4));
    await expect(executable.run({ params: other }, { ids })).rejects.toThrow(/another layout/);
  });

  it("leaves no tensors behind", async () => {
    const op = opCases[0];
    await runOp(engine, op);
    const before = tf.memory().numTensors;
    await runOp(engine, op);
    // Device arenas own one tensor per entry until they are disposed of; the op's arena is one of those.
    const owned = engine.name === "tensorflow" ? Object.keys(op.params).length : 0;
    expect(tf.memory().numTensors - before).toBe(owned);
  });
});

function forwardProgram(batch: number, length: number): Program {
  return {
    key: `forward ${batch}x${length}`,
    arenas: { params: { layout: tinyLayout(TINY), access: "read" } },
    inputs: { ids: { shape: [batch, length], dtype: "int32" } },
    body: ({ params }, { ids }) => {
      const hidden = tinyHidden(TINY, params, ids);
      return { outputs: { logits: tf.matMul(hidden, params.wte, false, true) } };
    },
  };
}

function prefillProgram(cacheRows: number, slots: number, batch: number, length: number): Program {
  return {
    key: `prefill ${cacheRows}x${slots} ${batch}x${length}`,
    arenas: {
      params: { layout: tinyLayout(TINY), access: "read" },
      cache: { layout: cacheLayout(TINY, cacheRows, slots), access: "update" },
    },
    inputs: { ids: { shape: [batch, length], dtype: "int32" }, rows: { shape: [batch], dtype: "int32" } },
    body: ({ params, cache }, { ids, rows }) => {
      const result = tinyPrefill(TINY, params, cache, ids, rows);
      return { outputs: { logits: result.logits }, updates: { cache: result.cache } };
    },
  };
}

function decodeProgram(rows: number, slots: number): Program {
  return {
    key: `decode ${rows}x${slots}`,
    arenas: {
      params: { layout: tinyLayout(TINY), access: "read" },
      cache: { layout: cacheLayout(TINY, rows, slots), access: "update" },
    },
    inputs: { ids: { shape: [rows], dtype: "int32" }, lengths: { shape: [rows], dtype: "int32" } },
    body: ({ params, cache }, { ids, lengths }) => {
      const result = tinyDecode(TINY, params, cache, ids, lengths);
      return { outputs: { logits: result.logits }, updates: { cache: result.cache } };
    },
  };
}
