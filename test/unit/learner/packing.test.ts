import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { packRuns, rowLength, type PackedRun } from "../../../src/learner/packing.js";
import { streamOf, uniformAt } from "../../../src/shared/rng.js";
import { cutMicroShards } from "../../../src/stages/micro-shards.js";

const OPTIONS = { budgetTokens: 1024, hidden: 256 };
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
        const runs = packRuns(of, { ...OPTIONS, budgetTokens });
        const items = runs.flatMap(({ places }) => places.map(({ item }) => item));
        expect(items.sort((a, b) => a - b)).toEqual(of.map((_, i) => i));
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
        const runs = packRuns(shard, OPTIONS);
        real += total(shard);
        laid += computed(runs);
        for (const run of runs) shapes.add(`${run.rows}x${run.length}`);
      }
    }
    expect(laid / real).toBeLessThan(1.1);
    expect(shapes.size).toBeLessThanOrEqual(20);
  });

  it("needs no padding for rows of one length that is a rung", () => {
    expect(computed(packRuns(new Array<number>(8).fill(256), OPTIONS))).toBe(8 * 256);
  });

  it("gives a sequence beyond the budget a run of its own row", () => {
    expect(packRuns([300], { ...OPTIONS, budgetTokens: 64 })).toEqual([
      { rows: 1, length: 320, places: [{ item: 0, row: 0, start: 0 }] },
    ]);
    expect(() => packRuns([3], { ...OPTIONS, budgetTokens: 0 })).toThrow(/microBatchTokens/);
  });
});
