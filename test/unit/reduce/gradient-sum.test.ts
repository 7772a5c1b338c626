import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { GradientSum, type TreeNode } from "../../../src/reduce/gradient-sum.js";
import { decodeGradient, encodeGradient, type WireFormat } from "../../../src/rpc/codec/gradient.js";
import { subtreesOf, TreeSum } from "../../../src/learner/tree-sum.js";

const SHARDS = 8;
const ELEMENTS = 7;
const BUCKET = 3;

/** Every way to cut 8 shards into contiguous ranges, as lists of first shards: 2^7 of them, 1 to 8 learners. */
const partitions: number[][] = Array.from({ length: 2 ** (SHARDS - 1) }, (_, bits) => [
  0,
  ...Array.from({ length: SHARDS - 1 }, (_, i) => i + 1).filter((shard) => (bits >> (shard - 1)) & 1),
]);

/** What the learner with shards `first` … `last` sends. */
function nodesOf(
  shards: readonly Float32Array[],
  first: number,
  last: number,
  wire: WireFormat = "f32",
): { node: TreeNode; values: Float32Array }[] {
  const sum = new TreeSum(wire);
  for (let shard = first; shard <= last; shard++)
    sum.push({ level: 0, index: shard, values: shards[shard].slice() });
  expect(sum.nodes.map(({ level, index }) => ({ level, index }))).toEqual(subtreesOf(first, last));
  return sum.nodes.map(({ level, index, values }) => ({ node: { level, index }, values }));
}

const wireOf = (values: Float32Array, wire: WireFormat = "f32"): Uint8Array =>
  Uint8Array.from(encodeGradient(values, wire));
const makeSum = (
  onTotal: (bucket: number, total: Uint8Array) => void = () => undefined,
  wire: WireFormat = "f32",
) => new GradientSum({ shardCount: SHARDS, elementCount: ELEMENTS, bucketElements: BUCKET, wire, onTotal });

function reduce(
  messages: readonly { node: TreeNode; values: Float32Array }[],
  wire: WireFormat = "f32",
): {
  total: Float32Array;
  sum: GradientSum;
} {
  const total = new Float32Array(ELEMENTS);
  const sum = makeSum((bucket, part) => {
    const target = total.subarray(bucket * BUCKET, (bucket + 1) * BUCKET);
    decodeGradient(part, wire, target, "total");
  }, wire);
  for (const { node, values } of messages) {
    for (let bucket = 0; bucket * BUCKET < ELEMENTS; bucket++)
      sum.add(node, bucket, wireOf(values.subarray(bucket * BUCKET, (bucket + 1) * BUCKET), wire));
  }
  return { total, sum };
}

const vectors = fc.array(
  fc.float32Array({
    minLength: ELEMENTS,
    maxLength: ELEMENTS,
    noNaN: true,
    noDefaultInfinity: true,
    min: -1e6,
    max: 1e6,
  }),
  { minLength: SHARDS, maxLength: SHARDS },
);
const bytesOf = (values: Float32Array): string => Buffer.from(values.buffer.slice(0)).toString("hex");

describe("GradientSum", () => {
  it.each(["f32", "bf16"] as const)(
    "gives the same bits in %s for every way to share 8 shards among 1 to 8 learners, in any order of arrival",
    (wire) => {
      fc.assert(
        fc.property(vectors, fc.infiniteStream(fc.nat()), (shards, dice) => {
          const whole = new TreeSum(wire);
          for (const [index, values] of shards.entries())
            whole.push({ level: 0, index, values: values.slice() });
          const expected = bytesOf(whole.total(SHARDS));
          for (const firsts of partitions) {
            const messages = firsts.flatMap((first, rank) =>
              nodesOf(shards, first, (firsts[rank + 1] ?? SHARDS) - 1, wire),
            );
            const order = messages
              .map((message) => ({ message, key: dice.next().value }))
              .sort((a, b) => a.key - b.key);
            const { total, sum } = reduce(
              order.map(({ message }) => message),
              wire,
            );
            expect(sum.isComplete).toBe(true);
            expect(bytesOf(total)).toBe(expected);
          }
        }),
        { numRuns: 10 },
      );
    },
  );

  it("rounds every node to bfloat16: leaves first, then each sum", () => {
    const shards = Array.from({ length: SHARDS }, (_, i) =>
      new Float32Array(ELEMENTS).fill(i === 0 ? 256 : 0.5),
    );
    const { total } = reduce(nodesOf(shards, 0, SHARDS - 1, "bf16"), "bf16");
    // 256 + 0.5 → 256, + 1 → 256 (a tie, to even), + 2 → 258: eight bits hold steps of 2 there.
    expect([...total]).toEqual(new Array(ELEMENTS).fill(258));
  });

  it("is not the plain sum from left to right: the tree decides the bits", () => {
    const shards = Array.from({ length: SHARDS }, (_, i) =>
      new Float32Array(ELEMENTS).fill(i === 0 ? 2 ** 24 : 1),
    );
    const { total } = reduce(nodesOf(shards, 0, SHARDS - 1));
    // 2^24 + 1 rounds back to 2^24, so adding one by one would lose all seven; the tree loses one.
    expect([...total]).toEqual(new Array(ELEMENTS).fill(2 ** 24 + 6));
  });

  it("is incomplete, and has no total, while a shard is missing", () => {
    const shards = Array.from({ length: SHARDS }, () => new Float32Array(ELEMENTS).fill(1));
    const { sum } = reduce(nodesOf(shards, 0, SHARDS - 2));
    expect(sum.isComplete).toBe(false);
  });

  const ones = (length: number) => new Float32Array(length).fill(1);
  it.each<[string, TreeNode, number, Float32Array, RegExp]>([
    [
      "a node beyond the last shard",
      { level: 0, index: SHARDS },
      0,
      ones(BUCKET),
      /not in a tree over 8 shards/,
    ],
    ["a level above the root", { level: 4, index: 0 }, 0, ones(BUCKET), /not in a tree/],
    ["a negative index", { level: 0, index: -1 }, 0, ones(BUCKET), /not in a tree/],
    [
      "a bucket that does not exist",
      { level: 0, index: 0 },
      3,
      ones(BUCKET),
      /bucket: expected 0\.\.2, got 3/,
    ],
    ["too few elements", { level: 0, index: 0 }, 0, ones(BUCKET - 1), /expected 12 bytes, got 8/],
    [
      "too many elements in the last, shorter bucket",
      { level: 0, index: 0 },
      2,
      ones(BUCKET),
      /expected 4 bytes, got 12/,
    ],
  ])("refuses %s", (_, node, bucket, values, message) => {
    const sum = makeSum();
    expect(() => sum.add(node, bucket, wireOf(values))).toThrow(
      expect.objectContaining({ code: "PROTOCOL", message: expect.stringMatching(message) as string }),
    );
  });

  it.each<[string, TreeNode[], TreeNode]>([
    ["the same node", [{ level: 1, index: 2 }], { level: 1, index: 2 }],
    ["a shard inside a node that came before", [{ level: 2, index: 0 }], { level: 0, index: 3 }],
    ["a node around a shard that came before", [{ level: 0, index: 5 }], { level: 1, index: 2 }],
    [
      "a shard that is already part of a sum",
      [
        { level: 0, index: 0 },
        { level: 0, index: 1 },
      ],
      { level: 0, index: 1 },
    ],
    ["anything after the total", [{ level: 3, index: 0 }], { level: 0, index: 0 }],
  ])("never counts a shard twice: refuses %s", (_, before, again) => {
    const sum = makeSum();
    for (const node of before) sum.add(node, 0, wireOf(ones(BUCKET)));
    expect(() => sum.add(again, 0, wireOf(ones(BUCKET)))).toThrow(
      expect.objectContaining({ code: "PROTOCOL" }),
    );
    sum.add(again, 1, wireOf(ones(BUCKET))); // another bucket has its own tree
  });
});
