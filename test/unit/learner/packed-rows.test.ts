import { afterAll, describe, expect, it } from "vitest";
import { createEngine } from "../../../src/engine/create-engine.js";
import type { Engine, Program } from "../../../src/engine/engine.js";
import { columnOf, layPairs, layPpo, laySft } from "../../../src/learner/packed-rows.js";
import { listedLogprobs, listedValues, specKey } from "../../../src/models/forward.js";
import { initParams, layoutOf, withHead, type Head } from "../../../src/models/model-spec.js";
import { plainSpec } from "../lora/models.js";
import { everyLogprob, tokenValues } from "../models/whole-sequences.js";
import { ppoRows, sftRows } from "./fixtures.js";

const OPTIONS = { budgetTokens: 64, hidden: 8, contextTokens: 32, padId: 1 };

describe("laySft", () => {
  it("lists token t of a sequence at the position before it, and the first token never", () => {
    const rows = [
      { ids: Int32Array.of(5, 6, 7, 8), lossMask: Uint8Array.of(1, 0, 1, 1) },
      { ids: Int32Array.of(9, 10, 11, 12, 13, 14), lossMask: Uint8Array.of(1, 1, 0, 0, 0, 1) },
    ];
    const [run] = laySft(rows, OPTIONS);
    expect(run.shape).toEqual({ rows: 1, length: 16, tokens: 4 });
    expect([...run.ids]).toEqual([9, 10, 11, 12, 13, 14, 5, 6, 7, 8, 1, 1, 1, 1, 1, 1]);
    expect([...run.starts]).toEqual([0, 0, 0, 0, 0, 0, 6, 6, 6, 6, 10, 11, 12, 13, 14, 15]);
    expect([...run.at]).toEqual([7, 8, 0, 4]);
    expect([...run.labels]).toEqual([7, 8, 10, 14]);
    expect(run.sources).toEqual([
      { item: 0, index: 2 },
      { item: 0, index: 3 },
      { item: 1, index: 1 },
      { item: 1, index: 5 },
    ]);
  });
});

describe("layPpo", () => {
  const row = {
    promptIds: Int32Array.of(2, 3, 4),
    responseIds: Int32Array.of(5, 6),
    logprobs: Float32Array.of(-1, -2),
    values: Float32Array.of(10, 20),
    advantages: Float32Array.of(0.5, -0.5),
    returns: Float32Array.of(7, 8),
    actionMask: Uint8Array.of(1, 0),
  };

  it("lists counted response tokens: token i of P prompt tokens is predicted at P + i − 1", () => {
    const [run] = layPpo([row, { ...row, actionMask: Uint8Array.of(1, 1) }], OPTIONS);
    expect([...run.at]).toEqual([2, 7, 8, 0]);
    expect([...run.labels]).toEqual([5, 5, 6, 0]);
    expect([...run.mask]).toEqual([1, 1, 1, 0]);
    expect([...columnOf(run, () => row.values)]).toEqual([10, 10, 20, 0]);
  });

  it("refuses misaligned rows and rows without a prompt", () => {
    const bad = { ...row, values: new Float32Array(3) };
    expect(() => layPpo([bad], OPTIONS)).toThrow(/2 response tokens, 3 entries/);
    expect(() => layPpo([{ ...row, promptIds: new Int32Array(0) }], OPTIONS)).toThrow(/expected at least 1/);
    expect(() => layPpo([row], { ...OPTIONS, contextTokens: 4 })).toThrow(/5 tokens; the model holds 4/);
  });
});

describe("layPairs", () => {
  const pair = {
    chosen: Int32Array.of(5, 6, 30, 31, 0),
    rejected: Int32Array.of(5, 6, 40, 0),
    promptTokens: 2,
  };

  it("lays the sides at the same columns of two halves, as wide as the longer", () => {
    const [run] = layPairs([pair, pair], OPTIONS, null);
    expect(run.shape).toEqual({ rows: 1, length: 16, pairs: 2 });
    expect([...run.ids].slice(0, 12)).toEqual([5, 6, 30, 31, 0, 5, 6, 30, 31, 0, 1, 1]);
    expect([...run.ids].slice(16, 28)).toEqual([5, 6, 40, 0, 1, 5, 6, 40, 0, 1, 1, 1]);
    expect([...run.starts].slice(16, 27)).toEqual([0, 0, 0, 0, 0, 5, 5, 5, 5, 5, 10]);
    expect([...run.chosenAt]).toEqual([4, 9]);
    expect([...run.rejectedAt]).toEqual([16 + 3, 16 + 8]);
    expect([...run.spanWeights].map((w) => Number(w.toFixed(4)))).toEqual([
      ...[0, 0, 0.3333, 0.3333, 0.3333, 0, 0, 0.3333, 0.3333, 0.3333, 0, 0, 0, 0, 0, 0],
    ]);
  });

  it("under DeepSpeed-Chat's rule an EOS that is the pad id is neither scored nor compared", () => {
    const [run] = layPairs([pair, pair, pair], { ...OPTIONS, padId: 0 }, 0);
    expect([...run.chosenAt]).toEqual([3, 8, 13, 0]);
    expect([...run.pairMask]).toEqual([1, 1, 1, 0]);
    expect([...run.spanWeights].slice(0, 5)).toEqual([0, 0, 0.5, 0.5, 0]);
  });
});

describe("a packed row", () => {
  const engines = new Map<string, Promise<Engine>>();
  const engineOf = (name: "onnx" | "reference") => {
    if (!engines.has(name))
      engines.set(
        name,
        createEngine({ name }).then(({ engine }) => engine),
      );
    return engines.get(name)!;
  };
  afterAll(async () => {
    for (const engine of engines.values()) await (await engine).dispose();
  });
  const cases = ["gpt2", "opt", "llama"].flatMap((family) =>
    (["onnx", "reference"] as const).map((engine) => [family, engine] as const),
  );

  it.each(cases)("gives every %s sequence the numbers it has alone, on %s", async (family, name) => {
    const engine = await engineOf(name);
    const run = async (
      head: Head,
      program: Omit<Program, "arenas" | "key">,
      inputs: Record<string, Int32Array>,
    ) => {
      const spec = plainSpec(family, head);
      const params = engine.createArena(layoutOf(spec), initParams(spec, 7));
      const key = `${specKey(spec)} ${JSON.stringify(program.inputs)}`;
      const whole = {
        ...program,
        key,
        arenas: { params: { layout: layoutOf(spec), access: "read" } },
      } as Program;
      return (await (await engine.compile(whole)).run({ params }, inputs)).perToken;
    };
    const language = plainSpec(family);
    const scalar = withHead(language, "scalar");
    const rows = sftRows(7)
      .slice(1)
      .map(({ ids }) => ({ ids, lossMask: new Uint8Array(ids.length).fill(1) }));
    const [{ shape, ids, starts, at, labels, sources }] = laySft(rows, { ...OPTIONS, budgetTokens: 256 });
    const i32 = (...dims: number[]) => ({ shape: dims, dtype: "int32" as const });
    const grid = {
      ids: i32(shape.rows, shape.length),
      starts: i32(shape.rows, shape.length),
      at: i32(shape.tokens),
    };
    const packed = {
      lm: await run(
        "lm",
        {
          inputs: { ...grid, labels: i32(shape.tokens) },
          body: ({ params }, { ids, starts, at, labels }) => ({
            outputs: {
              perToken: listedLogprobs(language, params, { ids, starts }, { at, labels, temperature: 0.7 }),
            },
          }),
        },
        { ids, starts, at, labels },
      ),
      scalar: await run(
        "scalar",
        {
          inputs: grid,
          body: ({ params }, { ids, starts, at }) => ({
            outputs: { perToken: listedValues(scalar, params, { ids, starts }, at) },
          }),
        },
        { ids, starts, at },
      ),
    };
    for (const [item, row] of rows.entries()) {
      const inputs = { ids: i32(1, row.ids.length) };
      const alone = {
        lm: await run(
          "lm",
          {
            inputs,
            body: ({ params }, { ids }) => ({
              outputs: { perToken: everyLogprob(language, params, ids, 0.7) },
            }),
          },
          { ids: row.ids },
        ),
        scalar: await run(
          "scalar",
          {
            inputs,
            body: ({ params }, { ids }) => ({ outputs: { perToken: tokenValues(scalar, params, ids) } }),
          },
          { ids: row.ids },
        ),
      };
      sources.forEach((source, n) => {
        if (source.item !== item) return;
        expect(Math.abs(packed.lm[n] - alone.lm[source.index - 1]), `logprob ${n}`).toBeLessThan(2e-5);
        expect(Math.abs(packed.scalar[n] - alone.scalar[source.index - 1]), `value ${n}`).toBeLessThan(2e-5);
      });
    }
    expect(sources.length).toBe(rows.reduce((sum, row) => sum + row.ids.length - 1, 0));
  });
});

it("a micro-shard of ppo rows is the same multiset of tokens however it is laid out", () => {
  const rows = ppoRows(9);
  const tokensOf = (budgetTokens: number) =>
    layPpo(rows, { ...OPTIONS, budgetTokens })
      .flatMap((run) => run.sources.map(({ item, index }, n) => `${item}/${index}/${run.labels[n]}`))
      .sort();
  expect(tokensOf(16)).toEqual(tokensOf(512));
});
