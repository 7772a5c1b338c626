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
 *
 * With bfloat16 on the wire every node of the tree is rounded, leaves and sums, sent or not: + is then one float32
 * addition and one rounding, and the result still does not depend on how many learners there are.
 */
import { addBf16, addF32 } from "../kernels/gradient-kernels.js";
import { BYTES_PER_ELEMENT, type WireFormat } from "../rpc/codec/gradient.js";
import { protocolError } from "../shared/errors.js";

export interface TreeNode {
  readonly level: number;
  readonly index: number;
}

/** `+` of the tree, on the bytes of the wire. */
const ADD = { f32: addF32, bf16: addBf16 } as const;

export interface GradientSumOptions {
  /** Micro-shards of the step, a power of two. */
  readonly shardCount: number;
  /** Elements of one gradient. */
  readonly elementCount: number;
  /** Elements per bucket; the last one may be shorter. */
  readonly bucketElements: number;
  readonly wire: WireFormat;
  /** Called once per bucket with its total, which is the caller's then. */
  readonly onTotal: (bucket: number, total: Uint8Array) => void;
  /** Gets what was added to something else and is not needed any more. */
  readonly onFree?: (values: Uint8Array) => void;
}

interface Slot {
  /** Values that arrived (or were summed) for this bucket, by node key, until their sibling arrives. */
  readonly waiting: Map<string, Uint8Array>;
  /** 1 for every shard that some node of this bucket covered. */
  readonly covered: Uint8Array;
}

const keyOf = (level: number, index: number): string => `${level}/${index}`;

export class GradientSum {
  private readonly buckets: Slot[];
  private readonly rootLevel: number;
  private remaining: number;
  readonly bucketCount: number;

  constructor(readonly options: GradientSumOptions) {
    const { shardCount, elementCount, bucketElements } = options;
    this.rootLevel = Math.log2(shardCount);
    if (!Number.isInteger(this.rootLevel))
      throw protocolError(`shard_count: expected a power of two, got ${shardCount}`);
    this.bucketCount = Math.ceil(elementCount / bucketElements);
    this.buckets = Array.from({ length: this.bucketCount }, () => ({
      waiting: new Map<string, Uint8Array>(),
      covered: new Uint8Array(shardCount),
    }));
    this.remaining = this.bucketCount;
  }

  get isComplete(): boolean {
    return this.remaining === 0;
  }

  /** Bytes of one node's values of a bucket. @throws {TroupeError} PROTOCOL for a bucket that does not exist */
  bytesOf(bucket: number): number {
    if (!(bucket >= 0 && bucket < this.bucketCount))
      throw protocolError(`bucket: expected 0..${this.bucketCount - 1}, got ${bucket}`);
    const { bucketElements, elementCount, wire } = this.options;
    return Math.min(bucketElements, elementCount - bucket * bucketElements) * BYTES_PER_ELEMENT[wire];
  }

  /**
   * Adds one node's values for one bucket. Owns `values` afterwards (adds in place).
   * @throws {TroupeError} PROTOCOL for a node outside the tree, shards that were added before, or a wrong length
   */
  add(node: TreeNode, bucket: number, values: Uint8Array): void {
    const { shardCount, wire, onTotal, onFree } = this.options;
    const expected = this.bytesOf(bucket);
    if (!(
      node.level >= 0 &&
      node.level <= this.rootLevel &&
      node.index >= 0 &&
      node.index < shardCount >> node.level
    )) {
      throw protocolError(
        `tree node ${keyOf(node.level, node.index)} is not in a tree over ${shardCount} shards`,
      );
    }
    if (values.length !== expected)
      throw protocolError(`bucket ${bucket}: expected ${expected} bytes, got ${values.length}`);
    const { waiting, covered } = this.buckets[bucket];
    let { level, index } = node;
    const shards = covered.subarray(index << level, (index + 1) << level);
    if (shards.includes(1))
      throw protocolError(`tree node ${keyOf(level, index)} covers a shard that was added before`);
    shards.fill(1);
    while (level < this.rootLevel) {
      const siblingKey = keyOf(level, index ^ 1);
      const sibling = waiting.get(siblingKey);
      if (sibling === undefined) {
        waiting.set(keyOf(level, index), values);
        return;
      }
      waiting.delete(siblingKey);
      // Left plus right: addition commutes, so only the pairing matters, not the order of arrival.
      ADD[wire](values, sibling);
      onFree?.(sibling);
      level += 1;
      index >>= 1;
    }
    this.remaining -= 1;
    onTotal(bucket, values);
  }
}
