/**
 * The sum of one optimizer step's gradients, bucket by bucket.
 *
 * Every minibatch is cut into the same S micro-shards however many learners there are; gradients are added along a
 * fixed pairwise tree over the shards:
 *
 *   level 2            (0..3)
 *   level 1      (0,1)        (2,3)
 *   level 0     0     1      2     3        each + is one float32 addition per element
 *
 * A learner adds what lies inside its own contiguous range and sends the tree nodes that cover it; the rest of the
 * tree is added here. Whoever adds a pair, the operands are the same, so the result has the same bits for 1 to S
 * learners. A step's sum is all-or-nothing: it exists once every node arrived, or never.
 */
import { protocolError } from "../shared/errors.js";

export interface TreeNode {
  readonly level: number;
  readonly index: number;
}

interface Slot {
  /** Values that arrived (or were summed) for this bucket, by node key, until their sibling arrives. */
  readonly waiting: Map<string, Float32Array>;
  /** 1 for every shard that some node of this bucket covered. */
  readonly covered: Uint8Array;
}

const keyOf = (level: number, index: number): string => `${level}/${index}`;

export class GradientSum {
  private readonly buckets: Slot[];
  private readonly rootLevel: number;
  private readonly results: (Float32Array | undefined)[];
  private remaining: number;
  readonly bucketCount: number;

  /**
   * @param shardCount micro-shards of the step, a power of two
   * @param elementCount float32 elements of one gradient
   * @param bucketElements elements per bucket; the last one may be shorter
   * @param onBucket called once per bucket, with its total
   */
  constructor(
    readonly shardCount: number,
    readonly elementCount: number,
    readonly bucketElements: number,
    private readonly onBucket: (bucket: number, total: Float32Array) => void,
  ) {
    this.rootLevel = Math.log2(shardCount);
    if (!Number.isInteger(this.rootLevel))
      throw protocolError(`shard_count: expected a power of two, got ${shardCount}`);
    this.bucketCount = Math.ceil(elementCount / bucketElements);
    this.buckets = Array.from({ length: this.bucketCount }, () => ({
      waiting: new Map<string, Float32Array>(),
      covered: new Uint8Array(shardCount),
    }));
    this.results = new Array<Float32Array | undefined>(this.bucketCount);
    this.remaining = this.bucketCount;
  }

  get isComplete(): boolean {
    return this.remaining === 0;
  }

  lengthOf(bucket: number): number {
    return Math.min(this.bucketElements, this.elementCount - bucket * this.bucketElements);
  }

  /**
   * Adds one node's values for one bucket. Owns `values` afterwards (adds in place).
   * @throws {TroupeError} PROTOCOL for a node outside the tree, shards that were added before, or a wrong length
   */
  add(node: TreeNode, bucket: number, values: Float32Array): void {
    if (!(bucket >= 0 && bucket < this.bucketCount))
      throw protocolError(`bucket: expected 0..${this.bucketCount - 1}, got ${bucket}`);
    if (!(
      node.level >= 0 &&
      node.level <= this.rootLevel &&
      node.index >= 0 &&
      node.index < this.shardCount >> node.level
    )) {
      throw protocolError(
        `tree node ${keyOf(node.level, node.index)} is not in a tree over ${this.shardCount} shards`,
      );
    }
    if (values.length !== this.lengthOf(bucket))
      throw protocolError(
        `bucket ${bucket}: expected ${this.lengthOf(bucket)} elements, got ${values.length}`,
      );
    const { waiting, covered } = this.buckets[bucket];
    let { level, index } = node;
    const shards = covered.subarray(index << level, (index + 1) << level);
    if (shards.includes(1))
      throw protocolError(`tree node ${keyOf(level, index)} covers a shard that was added before`);
    shards.fill(1);
    const total = values;
    while (level < this.rootLevel) {
      const siblingKey = keyOf(level, index ^ 1);
      const sibling = waiting.get(siblingKey);
      if (sibling === undefined) {
        waiting.set(keyOf(level, index), total);
        return;
      }
      waiting.delete(siblingKey);
      // Left plus right: float32 addition commutes, so only the pairing matters, not the order of arrival.
      for (let i = 0; i < total.length; i++) total[i] += sibling[i];
      level += 1;
      index >>= 1;
    }
    this.results[bucket] = total;
    this.remaining -= 1;
    this.onBucket(bucket, total);
  }

  /** Total of a bucket that is complete. */
  resultOf(bucket: number): Float32Array | undefined {
    return this.results[bucket];
  }
}
