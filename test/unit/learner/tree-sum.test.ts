import { describe, expect, it } from "vitest";
import { subtreesOf, TreeSum, type TreeNode } from "../../../src/learner/tree-sum.js";
import { normals } from "../rl/fixtures.js";

const SHARDS = 8;
const SIZE = 257;
const leaves = Array.from({ length: SHARDS }, (_, i) => normals(SIZE, `leaf ${i}`, 10 ** (i % 4)));
const leaf = (index: number): TreeNode => ({ level: 0, index, values: leaves[index].slice() });

/** The definition, recursively: a node is the float32 sum of its two halves. */
function reference(level: number, index: number): Float32Array {
  if (level === 0) return leaves[index];
  const left = reference(level - 1, 2 * index);
  const right = reference(level - 1, 2 * index + 1);
  return left.map((x, i) => Math.fround(x + right[i]));
}

/** Every way to cut 0..7 into contiguous non-empty ranges: one bit per possible cut. */
const partitions = Array.from({ length: 2 ** (SHARDS - 1) }, (_, cuts) => {
  const ranges: [number, number][] = [];
  let first = 0;
  for (let shard = 0; shard < SHARDS; shard++) {
    if (shard === SHARDS - 1 || (cuts >> shard) & 1) {
      ranges.push([first, shard]);
      first = shard + 1;
    }
  }
  return ranges;
});

describe("TreeSum", () => {
  it("gives the same bits for every partition of 8 shards among 1 to 8 learners", () => {
    expect(partitions).toHaveLength(128);
    const expected = reference(3, 0);
    for (const ranges of partitions) {
      const whole = new TreeSum();
      for (const [first, last] of ranges) {
        const learner = new TreeSum();
        for (let shard = first; shard <= last; shard++) learner.push(leaf(shard));
        for (const node of learner.nodes) whole.push(node);
      }
      expect(Buffer.from(whole.total(SHARDS).buffer).equals(Buffer.from(expected.buffer))).toBe(true);
    }
  });

  it("differs from adding up left to right, so the test above means something", () => {
    const sequential = leaves.reduce((sum, values) => sum.map((x, i) => Math.fround(x + values[i])));
    expect(sequential).not.toEqual(reference(3, 0));
  });

  it("a learner's nodes are the maximal subtrees inside its range", () => {
    for (let first = 0; first < SHARDS; first++) {
      for (let last = first; last < SHARDS; last++) {
        const learner = new TreeSum();
        for (let shard = first; shard <= last; shard++) learner.push(leaf(shard));
        const positions = learner.nodes.map(({ level, index }) => ({ level, index }));
        expect(positions).toEqual(subtreesOf(first, last));
      }
    }
    expect(subtreesOf(1, 6)).toEqual([
      { level: 0, index: 1 },
      { level: 1, index: 1 },
      { level: 1, index: 2 },
      { level: 0, index: 6 },
    ]);
    expect(subtreesOf(0, 7)).toEqual([{ level: 3, index: 0 }]);
    expect(subtreesOf(3, 2)).toEqual([]);
  });

  it("works for a single shard", () => {
    const sum = new TreeSum();
    sum.push(leaf(0));
    expect(sum.total(1)).toEqual(leaves[0]);
  });

  it("refuses gaps, repeats, missing shards, other sizes and a shard count that is no power of two", () => {
    const sum = new TreeSum();
    sum.push(leaf(0));
    expect(() => sum.push(leaf(2))).toThrow(/starts at shard 1, got shard 2/);
    expect(() => sum.push(leaf(0))).toThrow(/starts at shard 1, got shard 0/);
    expect(() => sum.total(2)).toThrow(/all 2 shards, got \(0,0\)/);
    expect(() => sum.total(6)).toThrow(/power of two, got 6/);
    expect(() => sum.push({ level: 0, index: 1, values: new Float32Array(3) })).toThrow(/257 and 3/);
  });
});
