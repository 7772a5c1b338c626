/**
 * The sum of a step as its buckets come in, in any order: checked, decoded, and digested for the vote while they are
 * in the cache.
 */
import { decodeGradient, type WireFormat } from "../rpc/codec/gradient.js";
import { digestOf, fold } from "../kernels/gradient-kernels.js";
import { protocolError } from "../shared/errors.js";

export interface ReducedGradient {
  /** Sum over all micro-shards of the minibatch, the same bits on every learner. */
  readonly values: Float32Array;
  readonly isFinite: boolean;
  /** 32 bits of the checksums of its buckets; equal for equal sums, however they travelled. */
  readonly hash: number;
}

export class TotalGradient {
  private readonly checksums: (number | undefined)[];
  private missing: number;
  private isFinite = true;
  readonly bucketCount: number;

  /** @param values written to; may be what this learner sends, since a total comes after its own bucket has gone */
  constructor(
    private readonly values: Float32Array,
    private readonly bucketElements: number,
    private readonly wire: WireFormat,
  ) {
    this.bucketCount = Math.ceil(values.length / bucketElements);
    this.checksums = new Array<number | undefined>(this.bucketCount);
    this.missing = this.bucketCount;
  }

  /** Where a bucket's elements belong. @throws {TroupeError} PROTOCOL for one that does not exist or came before */
  targetOf(bucket: number): Float32Array {
    if (!(bucket >= 0 && bucket < this.bucketCount))
      throw protocolError(`total: expected a bucket of 0..${this.bucketCount - 1}, got ${bucket}`);
    if (this.checksums[bucket] !== undefined) throw protocolError(`total of bucket ${bucket} came twice`);
    return this.values.subarray(bucket * this.bucketElements, (bucket + 1) * this.bucketElements);
  }

  /** Takes a bucket from its bytes. */
  accept(bucket: number, bytes: Uint8Array): void {
    const target = this.targetOf(bucket);
    decodeGradient(bytes, this.wire, target, `total of bucket ${bucket}`);
    this.note(bucket, target);
  }

  /** A bucket's elements are in place. @returns their checksum */
  note(bucket: number, target: Float32Array): number {
    const { buffer, byteOffset, byteLength } = target;
    const { checksum, isFinite } = digestOf(new Uint8Array(buffer, byteOffset, byteLength));
    this.checksums[bucket] = checksum;
    this.isFinite &&= isFinite;
    this.missing -= 1;
    return checksum;
  }

  get isComplete(): boolean {
    return this.missing === 0;
  }

  /** @throws {TroupeError} PROTOCOL while a bucket is missing */
  result(): ReducedGradient {
    const { bucketCount, missing, values, isFinite } = this;
    if (missing > 0)
      throw protocolError(`all-reduce: expected ${bucketCount} buckets, got ${bucketCount - missing}`);
    return { values, isFinite, hash: fold(this.checksums as number[], values.length) };
  }
}
