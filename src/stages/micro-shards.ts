/**
 * A minibatch cut into its fixed micro-shards. The cut depends on the rows alone, never on how many learners there
 * are, so neither do the gradients.
 */
import { shapeError } from "../shared/errors.js";

/**
 * Micro-shards of a minibatch: `wanted`, or the largest power of two that leaves none empty when rows are few.
 * @throws {TroupeError} SHAPE for an empty minibatch
 */
export function shardCountOf(rows: number, wanted: number): number {
  if (rows === 0) throw shapeError("a minibatch has no rows");
  return Math.min(wanted, 2 ** Math.floor(Math.log2(rows)));
}

/**
 * Rows of similar length share a shard, so that little padding is computed; neighbouring shards differ in length
 * (bit-reversed order), so that any contiguous range of shards, which is what a learner gets, is about equally long.
 *
 * @param shardCount a power of two, at most `rows.length`
 * @returns `shardCount` groups of ⌊n/S⌋ or ⌈n/S⌉ rows
 */
export function cutMicroShards<Row>(
  rows: readonly Row[],
  shardCount: number,
  lengthOf: (row: Row) => number,
): Row[][] {
  const byLength = rows
    .map((row, i) => ({ row, i, length: lengthOf(row) }))
    .sort((a, b) => a.length - b.length || a.i - b.i);
  const bits = Math.log2(shardCount);
  const shards = new Array<Row[]>(shardCount);
  for (let group = 0; group < shardCount; group++) {
    const first = Math.floor((group * rows.length) / shardCount);
    const end = Math.floor(((group + 1) * rows.length) / shardCount);
    shards[reverseBits(group, bits)] = byLength.slice(first, end).map(({ row }) => row);
  }
  return shards;
}

function reverseBits(value: number, bits: number): number {
  let reversed = 0;
  for (let i = 0; i < bits; i++) reversed |= ((value >> i) & 1) << (bits - 1 - i);
  return reversed;
}
