import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { cutMicroShards, shardCountOf } from "../../../src/stages/micro-shards.js";

const rowsOf = (lengths: readonly number[]) => lengths.map((length, id) => ({ id, length }));
const cut = (lengths: readonly number[], shards: number) =>
  cutMicroShards(rowsOf(lengths), shards, (row) => row.length);

describe("shardCountOf", () => {
  it.each([
    [64, 8, 8],
    [8, 8, 8],
    [7, 8, 4],
    [3, 8, 2],
    [1, 8, 1],
    [5, 1, 1],
  ])("cuts %i rows into %i shards as far as none stays empty: %i", (rows, wanted, expected) => {
    expect(shardCountOf(rows, wanted)).toBe(expected);
  });

  it("refuses a minibatch without rows", () => {
    expect(() => shardCountOf(0, 8)).toThrow(expect.objectContaining({ code: "SHAPE" }));
  });
});

describe("cutMicroShards", () => {
  const minibatch = fc.tuple(
    fc.array(fc.integer({ min: 1, max: 90 }), { minLength: 8, maxLength: 70 }),
    fc.constantFrom(1, 2, 4, 8),
  );

  it("puts every row into exactly one shard, and no two shards differ by more than one row", () => {
    fc.assert(
      fc.property(minibatch, ([lengths, shardCount]) => {
        const shards = cut(lengths, shardCount);
        expect(shards).toHaveLength(shardCount);
        expect(
          shards
            .flat()
            .map(({ id }) => id)
            .sort((a, b) => a - b),
        ).toEqual(lengths.map((_, i) => i));
        const sizes = shards.map((shard) => shard.length);
        expect(Math.max(...sizes) - Math.min(...sizes)).toBeLessThanOrEqual(1);
      }),
    );
  });

  it("pads no more than a cut by length does: lengths of different shards do not interleave", () => {
    fc.assert(
      fc.property(minibatch, ([lengths, shardCount]) => {
        const ranges = cut(lengths, shardCount)
          .map((shard) => shard.map(({ length }) => length))
          .map((of) => ({ min: Math.min(...of), max: Math.max(...of) }))
          .sort((a, b) => a.min - b.min || a.max - b.max);
        for (let i = 1; i < ranges.length; i++)
          expect(ranges[i].min).toBeGreaterThanOrEqual(ranges[i - 1].max);
      }),
    );
  });

  it("orders shards so that each half of them, and each quarter, holds short and long ones", () => {
    const means = cut(
      Array.from({ length: 16 }, (_, i) => i),
      8,
    ).map((shard) => shard.reduce((sum, { length }) => sum + length, 0) / shard.length);
    expect(means).toEqual([0.5, 8.5, 4.5, 12.5, 2.5, 10.5, 6.5, 14.5]);
  });

  it("breaks ties by position, so that equal minibatches are cut equally", () => {
    expect(cut([5, 5, 5, 5], 2).map((shard) => shard.map(({ id }) => id))).toEqual([
      [0, 1],
      [2, 3],
    ]);
  });
});
