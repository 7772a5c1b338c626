/**
 * Sums float32 vectors over micro-shards along one fixed binary tree, so that the bits of the total do not depend on
 * which learner computed which shard.
 *
 *   level 2          (2,0)                 node (l, i) covers shards [i·2^l, (i+1)·2^l)
 *   level 1     (1,0)     (1,1)            and is  left + right  =  (l−1, 2i) + (l−1, 2i+1),
 *   level 0   (0,0) (0,1) (0,2) (0,3)      one float32 addition per element
 *
 * A learner adds up the whole subtrees inside its contiguous range of shards; whoever holds the nodes of all learners
 * finishes the tree. Every addition has the same two operands wherever it happens. Where nodes travel as bfloat16,
 * every node is rounded to it, also those that do not travel.
 */
import { addVectors, addVectorsRounded, roundToBf16 } from "../kernels/gradient-kernels.js";
import type { WireFormat } from "../rpc/codec/gradient.js";
import { configError, shapeError } from "../shared/errors.js";

export interface TreePosition {
  readonly level: number;
  readonly index: number;
}

export interface TreeNode extends TreePosition {
  /** `[N]` sum over the shards the node covers */
  readonly values: Float32Array;
}

/**
 * The maximal subtrees that lie inside shards `first` … `last` (both included), left to right.
 * @example subtreesOf(1, 6) // (0,1) (1,1) (1,2) (0,6)
 */
export function subtreesOf(first: number, last: number): TreePosition[] {
  const nodes: TreePosition[] = [];
  for (let start = first; start <= last;) {
    let level = 0;
    while (start % 2 ** (level + 1) === 0 && start + 2 ** (level + 1) - 1 <= last) level++;
    nodes.push({ level, index: start / 2 ** level });
    start += 2 ** level;
  }
  return nodes;
}

/**
 * Adds vectors up as they come, keeping only the roots of finished subtrees (at most log2 of their number + 1 pairs).
 *
 * Push nodes left to right and without gaps. `push` takes the vector over: it may become the accumulator.
 */
export class TreeSum {
  private readonly roots: TreeNode[] = [];

  /**
   * @param wire what nodes travel as, hence what they are rounded to
   * @param onFree gets every vector that has been added to another and is no longer needed
   */
  constructor(
    private readonly wire: WireFormat = "f32",
    private readonly onFree: (values: Float32Array) => void = () => {},
  ) {}

  push(node: TreeNode): void {
    const previous = this.roots.at(-1);
    if (previous !== undefined && endOf(previous) !== startOf(node)) {
      throw shapeError(
        `tree sum: expected a node that starts at shard ${endOf(previous)}, got shard ${startOf(node)}`,
      );
    }
    if (this.wire === "bf16" && node.level === 0) roundToBf16(node.values);
    this.roots.push(node);
    for (;;) {
      const [left, right] = this.roots.slice(-2);
      const areSiblings = right !== undefined && left.level === right.level && left.index % 2 === 0;
      if (!areSiblings) return;
      this.roots.splice(-2, 2, {
        level: left.level + 1,
        index: left.index / 2,
        values: this.addInto(left.values, right.values),
      });
      this.onFree(right.values);
    }
  }

  private addInto(target: Float32Array, values: Float32Array): Float32Array {
    if (values.length !== target.length) {
      throw shapeError(`tree sum: vectors of ${target.length} and ${values.length} elements cannot be added`);
    }
    if (this.wire === "bf16") addVectorsRounded(target, values);
    else addVectors(target, values);
    return target;
  }

  /** Roots of the subtrees finished so far, left to right: those of `subtreesOf` for the range pushed. */
  get nodes(): readonly TreeNode[] {
    return this.roots;
  }

  /**
   * The sum over all shards.
   * @param shardCount a power of two
   * @throws {TroupeError} SHAPE when shards are missing
   */
  total(shardCount: number): Float32Array {
    checkShardCount(shardCount);
    const [root] = this.roots;
    if (this.roots.length !== 1 || root.index !== 0 || 2 ** root.level !== shardCount) {
      const got = this.roots.map(({ level, index }) => `(${level},${index})`).join(" ");
      throw shapeError(`tree sum: expected the nodes of all ${shardCount} shards, got ${got || "none"}`);
    }
    return root.values;
  }
}

const startOf = ({ level, index }: TreePosition): number => index * 2 ** level;
const endOf = ({ level, index }: TreePosition): number => (index + 1) * 2 ** level;

/** @throws {TroupeError} CONFIG unless `shardCount` is a power of two from 1 */
function checkShardCount(shardCount: number): void {
  if (!Number.isInteger(shardCount) || shardCount < 1 || !Number.isInteger(Math.log2(shardCount))) {
    throw configError(`cluster.microShards must be a power of two, got ${shardCount}`);
  }
}
