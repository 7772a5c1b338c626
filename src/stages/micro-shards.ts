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
 * Deals the rows out from long to short, there and back again: every shard gets long and short ones, which pack into
 * full rows (src/learner/packing.ts), and nearly the same number of tokens, so any two learners have equal work.
 *
 * @param shardCount at most `rows.length`
 * @returns `shardCount` groups of ⌊n/S⌋ or ⌈n/S⌉ rows
 */
export function cutMicroShards<Row>(
  rows: readonly Row[],
  shardCount: number,
  lengthOf: (row: Row) => number,
): Row[][] {
  const longestFirst = rows
    .map((row, i) => ({ row, i, length: lengthOf(row) }))
    .sort((a, b) => b.length - a.length || a.i - b.i);
  const shards = Array.from({ length: shardCount }, (): Row[] => []);
  longestFirst.forEach(({ row }, i) => {
    const column = i % shardCount;
    const isReturning = Math.floor(i / shardCount) % 2 === 1;
    shards[isReturning ? shardCount - 1 - column : column].push(row);
  });
  return shards;
}
