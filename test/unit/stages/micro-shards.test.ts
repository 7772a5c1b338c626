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

  it("gives any two shards nearly the same number of tokens: less than the longest row apart", () => {
    fc.assert(
      fc.property(minibatch, ([lengths, shardCount]) => {
        const even = lengths.slice(0, lengths.length - (lengths.length % (2 * shardCount)));
        if (even.length === 0) return;
        const sums = cut(even, shardCount).map((shard) => shard.reduce((sum, { length }) => sum + length, 0));
        expect(Math.max(...sums) - Math.min(...sums)).toBeLessThan(Math.max(...even));
      }),
    );
  });

  it("deals from long to short, there and back again", () => {
    const lengths = cut(
      Array.from({ length: 8 }, (_, i) => 10 * (i + 1)),
      4,
    ).map((shard) => shard.map(({ length }) => length));
    expect(lengths).toEqual([
      [80, 10],
      [70, 20],
      [60, 30],
      [50, 40],
    ]);
  });

  it("breaks ties by position, so that equal minibatches are cut equally", () => {
    expect(cut([5, 5, 5, 5], 2).map((shard) => shard.map(({ id }) => id))).toEqual([
      [0, 3],
      [1, 2],
    ]);
  });
});
