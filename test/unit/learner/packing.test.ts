import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { packRuns, rowLength, type Packable, type PackedRun } from "../../../src/learner/packing.js";
import { streamOf, uniformAt } from "../../../src/shared/rng.js";
import { cutMicroShards } from "../../../src/stages/micro-shards.js";
import { roundPairs, roundTokens } from "../../../src/learner/packed-rows.js";
import { choosingRunShapes, layCosts, MAX_SHAPES } from "../../../src/learner/run-shapes.js";
import { freshGpt2Spec } from "../../../src/models/model-spec.js";
import { atOnce } from "../../../src/shared/steps.js";

const OPTIONS = { budgetTokens: 1024, hidden: 256, roundListed: roundTokens };
const items = (lengths: readonly number[]): Packable[] =>
  lengths.map((length) => ({ length, listed: length }));
const computed = (runs: readonly PackedRun[]) =>
  runs.reduce((sum, { rows, length }) => sum + rows * length, 0);
const total = (lengths: readonly number[]) => lengths.reduce((sum, length) => sum + length, 0);

describe("rowLength", () => {
  it("climbs eight rungs to an octave, in multiples of 16", () => {
    expect([1, 16, 17, 129, 250, 257, 513].map(rowLength)).toEqual([16, 16, 32, 144, 256, 288, 576]);
  });
});

describe("packRuns", () => {
  const lengths = fc.array(fc.integer({ min: 1, max: 300 }), { minLength: 1, maxLength: 40 });

  it("lays every sequence once, inside its row, over no other, within the budget", () => {
    fc.assert(
      fc.property(lengths, fc.constantFrom(64, 500, 1024), (of, budgetTokens) => {
        const runs = packRuns(items(of), { ...OPTIONS, budgetTokens });
        const laid = runs.flatMap(({ places }) => places.map(({ item }) => item));
        expect(laid.sort((a, b) => a - b)).toEqual(of.map((_, i) => i));
        for (const { rows, length, places } of runs) {
          expect(Number.isInteger(Math.log2(rows))).toBe(true);
          expect(rows === 1 || rows * length <= budgetTokens).toBe(true);
          const taken = new Set<number>();
          for (const { item, row, start } of places) {
            expect(row).toBeLessThan(rows);
            expect(start + of[item]).toBeLessThanOrEqual(length);
            for (let t = 0; t < of[item]; t++) taken.add(row * length + start + t);
          }
          expect(taken.size).toBe(total(places.map(({ item }) => of[item])));
        }
      }),
    );
  });

  it("computes at most a tenth more than the tokens of a minibatch of mixed lengths, in a handful of shapes", () => {
    const stream = streamOf("lengths");
    const shapes = new Set<string>();
    let [real, laid] = [0, 0];
    for (let step = 0; step < 50; step++) {
      const rows = Array.from(
        { length: 64 },
        (_, i) => 16 + Math.floor(241 * uniformAt(1, stream, 64 * step + i)),
      );
      for (const shard of cutMicroShards(rows, 8, (length) => length)) {
        const runs = packRuns(items(shard), OPTIONS);
        real += total(shard);
        laid += computed(runs);
        for (const run of runs) shapes.add(`${run.rows}x${run.length}`);
      }
    }
    expect(laid / real).toBeLessThan(1.1);
    expect(shapes.size).toBeLessThanOrEqual(20);
  });

  it("needs no padding for rows of one length that is a rung", () => {
    expect(computed(packRuns(items(new Array<number>(8).fill(256)), OPTIONS))).toBe(8 * 256);
  });

  it("gives a sequence beyond the budget a run of its own row", () => {
    expect(packRuns(items([300]), { ...OPTIONS, budgetTokens: 64 })).toEqual([
      { rows: 1, length: 320, listed: 320, places: [{ item: 0, row: 0, start: 0 }] },
    ]);
    expect(() => packRuns(items([3]), { ...OPTIONS, budgetTokens: 0 })).toThrow(/microBatchTokens/);
  });
});

describe("the shapes of a stage", () => {
  const stream = streamOf("drawn");
  let drawn = 0;
  const uniform = () => uniformAt(2, stream, drawn++);
  const between = (least: number, most: number) => least + Math.floor((most - least + 1) * uniform());
  const lengths: Record<string, { readonly draw: () => number; readonly longest: number }> = {
    "16 to 256": { draw: () => between(16, 256), longest: 256 },
    "64 to 512": { draw: () => between(64, 512), longest: 512 },
    "two kinds": { draw: () => (uniform() < 0.5 ? between(130, 138) : between(240, 255)), longest: 255 },
    "mostly short": { draw: () => Math.min(1024, 16 - Math.log(1 - uniform()) * 150) | 0, longest: 1024 },
  };
  const options = { ...OPTIONS, listedCost: 0.5 };
  const minibatch = (draw: () => number, rows: number): Packable[][] => {
    const sequences = Array.from({ length: rows }, (): Packable => {
      const length = draw();
      return { length, listed: Math.ceil(length * (0.3 + 0.4 * uniform())) };
    });
    return cutMicroShards(sequences, 8, ({ length }) => length);
  };

  it.each(Object.keys(lengths).flatMap((name) => [32, 64].map((rows) => [name, rows] as const)))(
    "are at most eight programs for a run of lengths %s, %i rows a minibatch, and lay little padding",
    (name, rows) => {
      const { draw, longest } = lengths[name];
      const seen = Array.from({ length: 16 }, () => minibatch(draw, rows)).flat();
      const shapes = atOnce(choosingRunShapes(seen, longest, options));
      expect(shapes.length).toBeLessThanOrEqual(MAX_SHAPES);
      const programs = new Set<string>();
      let [real, laid] = [0, 0];
      for (const shard of Array.from({ length: 100 }, () => minibatch(draw, rows)).flat()) {
        const runs = packRuns(shard, { ...options, shapes });
        for (const run of runs) programs.add(`${run.rows} ${run.length} ${run.listed}`);
        real += shard.reduce((sum, { length }) => sum + length, 0);
        laid += computed(runs);
      }
      expect(programs.size).toBeLessThanOrEqual(MAX_SHAPES);
      expect(laid / real).toBeLessThan(name === "mostly short" ? 1.2 : 1.15);
      if (name === "16 to 256") expect(laid / real).toBeLessThan(1.12);
    },
  );

  it("hold whatever a stage may bring, each list in its program and each run in the budget", () => {
    const shards = fc.array(
      fc.record({
        length: fc.integer({ min: 1, max: 300 }),
        share: fc.double({ min: 0, max: 1, noNaN: true }),
      }),
      { minLength: 1, maxLength: 20 },
    );
    const seen = Array.from({ length: 4 }, () => minibatch(() => between(16, 120), 32)).flat();
    const shapes = atOnce(choosingRunShapes(seen, 300, options));
    fc.assert(
      fc.property(shards, (drawnShard) => {
        const shard = drawnShard.map(({ length, share }) => ({ length, listed: Math.floor(length * share) }));
        const runs = packRuns(shard, { ...options, shapes });
        const placed = runs.flatMap(({ places }) => places.map(({ item }) => item)).sort((a, b) => a - b);
        expect(placed).toEqual(shard.map((_, i) => i));
        for (const { rows, length, listed, places } of runs) {
          expect(shapes).toContainEqual({ rows, length, listed });
          expect(rows * length).toBeLessThanOrEqual(options.budgetTokens);
          expect(places.reduce((sum, { item }) => sum + shard[item].listed, 0)).toBeLessThanOrEqual(listed);
          for (const { item, row, start } of places) {
            expect(row).toBeLessThan(rows);
            expect(start + shard[item].length).toBeLessThanOrEqual(length);
          }
        }
      }),
    );
  });

  it("leave what is longer than was foreseen a shape of its own", () => {
    const shapes = atOnce(choosingRunShapes([items([64, 32])], 64, options));
    const [run] = packRuns(items([500]), { ...options, shapes });
    expect(run.length).toBe(512);
  });

  it("list pairs by powers of two, and tokens of a large vocabulary tightly", () => {
    const pairs = atOnce(
      choosingRunShapes([[1, 2, 3].map(() => ({ length: 60, listed: 1 }))], 64, {
        ...options,
        roundListed: roundPairs,
      }),
    );
    expect(pairs.some(({ listed }) => listed === 4)).toBe(true);
    const spec = (vocabularySize: number) =>
      freshGpt2Spec({
        ...{ head: "lm", layers: 4, hidden: 256, heads: 4, contextTokens: 256, vocabularySize },
        ...{ eosTokenId: 0, padTokenId: 1 },
      });
    expect(layCosts(spec(50_000)).listedCost).toBeGreaterThan(10 * layCosts(spec(100)).listedCost);
  });
});
