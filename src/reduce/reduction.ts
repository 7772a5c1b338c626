/**
 * The reducer's side of one optimizer step, whatever carries the bytes: members join with the nodes they hold, buckets
 * come in, every total goes out to every member as soon as it is complete. All-or-nothing: it completes or it fails,
 * once, and says so.
 *
 * Memory is bounded: a member may be at most WINDOW buckets ahead of the oldest bucket whose total somebody still
 * lacks; its stream is paused there. The one who holds the others up is never paused.
 */
import type { WireFormat } from "../rpc/codec/gradient.js";
import { TroupeError, describeError, protocolError } from "../shared/errors.js";
import { digestOf } from "../kernels/gradient-kernels.js";
import { GradientSum, type TreeNode } from "./gradient-sum.js";
import { SlotPool } from "./slot-pool.js";

/** A bucket is one message; gRPC's take at most 4 MiB, this leaves room for the envelope. */
const MAX_BUCKET_BYTES = 2 << 20;
/** Of one gradient: 64 GiB in buckets of 1 MiB. Small buckets would cost more in books than in bytes. */
const MAX_BUCKETS = 1 << 16;
/** Buckets. Enough for a round trip at 1 GB/s of 16 ms. */
export const WINDOW = 16;

export interface ReductionMember {
  readonly workerId: string;
  /** Contiguous micro-shards that it computes. */
  readonly firstShard: number;
  readonly shardCount: number;
}

/** What a member announces before its buckets. */
export interface ReductionHeader {
  readonly generation: number;
  readonly step: number;
  /** Nodes of the tree it contributes, in the order their buckets name them. */
  readonly nodes: readonly TreeNode[];
  readonly elementCount: number;
  readonly bucketElements: number;
  /** The last so many buckets are still being computed. @default 0 */
  readonly laterBuckets?: number;
}

/** A member's connection, as the reduction sees it. */
export interface MemberPort {
  /** `onSent` is called when `total` may be written to again; `checksum` gives its digest, made once for all members. */
  send(bucket: number, total: Uint8Array, onSent: () => void, checksum: () => number): void;
  /** The member shall not send on; resumed later. */
  pause(): void;
  resume(): void;
  /** Every total was sent. */
  finish(): void;
  fail(error: TroupeError): void;
}

/** How a member's connection speaks to the reduction. */
export interface Contribution {
  readonly pool: SlotPool;
  /** @throws {TroupeError} PROTOCOL for a bucket or node that was not announced */
  bytesOf(node: number, bucket: number): number;
  /** Takes `values` over. @throws {TroupeError} PROTOCOL */
  add(node: number, bucket: number, values: Uint8Array): void;
  /** The connection broke, or broke the contract. */
  lost(error: unknown): void;
}

export interface ReductionFailure {
  readonly generation: number;
  readonly step: number;
  /** Who is to blame, as far as is known. */
  readonly workerId: string | null;
  readonly reason: string;
}

export interface ReductionOptions {
  readonly generation: number;
  readonly step: number;
  readonly shardCount: number;
  readonly members: readonly ReductionMember[];
  readonly wire: WireFormat;
  /** Once all members are there, every bucket that its owners have computed completes within this many milliseconds. */
  readonly bucketTimeoutMs: number;
  readonly onBytes: (direction: "in" | "out", bytes: number) => void;
  readonly onFailed: (failure: ReductionFailure) => void;
  readonly onComplete?: (elapsedMs: number) => void;
}

interface Joined {
  readonly workerId: string;
  readonly nodes: readonly TreeNode[];
  readonly port: MemberPort;
  /** Buckets of nodes that it had when it joined; the others come when it has computed them. */
  readonly ready: number;
  /** Buckets of nodes that came. */
  received: number;
  sent: number;
  /** The last bucket that came. */
  position: number;
  isPaused: boolean;
}

/** A complete sum of a bucket. */
interface Total {
  readonly bytes: Uint8Array;
  /** Members that have not got it. */
  lacking: number;
  /** Its digest, once somebody wanted it. */
  checksum: number | undefined;
}

export class Reduction {
  private readonly members: ReadonlyMap<string, ReductionMember>;
  private readonly joined = new Map<string, Joined>();
  private state: "open" | "complete" | "failed" = "open";
  private sum: GradientSum | undefined;
  private pool: SlotPool | undefined;
  /** Complete totals that some member lacks, and how many do. */
  private readonly totals = new Map<number, Total>();
  private published = 0;
  private readonly isReleased: boolean[] = [];
  /** The oldest bucket that some member lacks. */
  private oldest = 0;
  private readonly startedMs = performance.now();
  private timer: NodeJS.Timeout | undefined;

  constructor(readonly options: ReductionOptions) {
    this.members = new Map(options.members.map((member) => [member.workerId, member]));
  }

  get isOpen(): boolean {
    return this.state === "open";
  }

  /**
   * @throws {TroupeError} CANCELLED for another step, FENCED for a stranger, PROTOCOL for an impossible header; the
   *   reduction goes on
   */
  join(workerId: string, header: ReductionHeader, port: MemberPort): Contribution {
    const { generation, step } = this.options;
    if (!this.isOpen || header.generation !== generation || header.step !== step)
      throw new TroupeError(
        "CANCELLED",
        `all-reduce of generation ${header.generation}, step ${header.step} is not open`,
      );
    const member = this.members.get(workerId);
    if (member === undefined)
      throw new TroupeError("FENCED", `${workerId} is not a member of generation ${generation}`);
    return this.admit(member, header, port);
  }

  /** Ends it; members that still wait for totals get an error. Idempotent. */
  close(reason: string): void {
    this.end(new TroupeError("CANCELLED", reason));
  }

  private admit(member: ReductionMember, header: ReductionHeader, port: MemberPort): Contribution {
    const { workerId } = member;
    if (this.joined.has(workerId))
      throw protocolError(`${workerId} joined the all-reduce of step ${header.step} twice`);
    checkHeader(header, member);
    const sum = (this.sum ??= this.makeSum(header));
    const { elementCount, bucketElements } = sum.options;
    if (elementCount !== header.elementCount || bucketElements !== header.bucketElements)
      throw protocolError(
        `${workerId}: expected gradients of ${elementCount} elements in buckets of ${bucketElements}, got ${header.elementCount} in ${header.bucketElements}`,
      );
    const { nodes } = header;
    const ready = nodes.length * (sum.bucketCount - (header.laterBuckets ?? 0));
    const joined: Joined = {
      ...{ workerId, nodes, port, ready, received: 0, sent: 0, position: -1, isPaused: false },
    };
    this.joined.set(workerId, joined);
    if (this.joined.size === this.members.size) this.watch();
    // Totals that were complete before this member joined; none was released, since it lacks them.
    for (const [bucket, total] of this.totals) this.deliver(joined, bucket, total);
    return {
      pool: this.pool as SlotPool,
      bytesOf: (node, bucket) => {
        nodeOf(joined, node);
        return sum.bytesOf(bucket);
      },
      add: (node, bucket, values) => this.add(joined, node, bucket, values),
      lost: (error) => this.fail(error, workerId),
    };
  }

  private makeSum({ elementCount, bucketElements }: ReductionHeader): GradientSum {
    const { shardCount, wire } = this.options;
    const sum = new GradientSum({
      shardCount,
      elementCount,
      bucketElements,
      wire,
      onTotal: (bucket, total) => this.publish(bucket, total),
      onFree: (values) => this.pool?.give(values),
    });
    this.pool = new SlotPool(sum.bytesOf(0), WINDOW * this.members.size);
    return sum;
  }

  private add(joined: Joined, node: number, bucket: number, values: Uint8Array): void {
    if (!this.isOpen) throw new TroupeError("CANCELLED", `step ${this.options.step} was given up`);
    this.options.onBytes("in", values.byteLength);
    (this.sum as GradientSum).add(nodeOf(joined, node), bucket, values);
    joined.received += 1;
    joined.position = bucket;
    if (!this.mayGoOn(joined)) {
      joined.isPaused = true;
      joined.port.pause();
    }
  }

  private mayGoOn({ position }: Joined): boolean {
    return position + 1 < this.oldest + WINDOW;
  }

  private publish(bucket: number, bytes: Uint8Array): void {
    this.timer?.refresh();
    this.published += 1;
    const total: Total = { bytes, lacking: this.members.size, checksum: undefined };
    this.totals.set(bucket, total);
    for (const member of this.joined.values()) this.deliver(member, bucket, total);
  }

  private deliver(member: Joined, bucket: number, total: Total): void {
    const { bytes } = total;
    this.options.onBytes("out", bytes.byteLength);
    const onSent = () => {
      member.sent += 1;
      this.noteSent(bucket);
    };
    member.port.send(bucket, bytes, onSent, () => (total.checksum ??= digestOf(bytes).checksum));
  }

  private noteSent(bucket: number): void {
    const total = this.totals.get(bucket);
    if (total === undefined || !this.isOpen) return;
    total.lacking -= 1;
    if (total.lacking > 0) return;
    this.timer?.refresh();
    this.totals.delete(bucket);
    this.pool?.give(total.bytes);
    this.isReleased[bucket] = true;
    while (this.isReleased[this.oldest]) this.oldest += 1;
    for (const member of this.joined.values()) {
      if (!member.isPaused || !this.mayGoOn(member)) continue;
      member.isPaused = false;
      member.port.resume();
    }
    if (this.oldest === this.sum?.bucketCount) this.end(undefined);
  }

  /**
   * From here on somebody is late when nothing is completed or delivered for `bucketTimeoutMs`; but not who still computes:
   * how long that may take is for the coordinator to say, who is told when it is done.
   */
  private watch(): void {
    const { bucketTimeoutMs, generation, step, onFailed } = this.options;
    this.timer = setTimeout(() => {
      const all = [...this.joined.values()];
      const late = all.some((member) => this.isComputing(member)) ? all.filter((m) => this.owes(m)) : all;
      const [slowest] = late.sort((a, b) => a.received + a.sent - (b.received + b.sent));
      if (slowest === undefined) return this.watch();
      const reason = `no bucket was completed for ${bucketTimeoutMs / 1000} s; ${slowest.workerId} has sent ${slowest.received} and taken ${slowest.sent} of ${this.sum?.bucketCount}`;
      if (!this.end(new TroupeError("CANCELLED", reason))) return;
      onFailed({ generation, step, workerId: slowest.workerId, reason });
    }, bucketTimeoutMs);
  }

  /** It has sent what it had, and of the rest nothing. */
  private isComputing({ nodes, ready, received }: Joined): boolean {
    return received === ready && ready < nodes.length * (this.sum as GradientSum).bucketCount;
  }

  /** It could send, or take a total. */
  private owes(member: Joined): boolean {
    const { nodes, received, sent, isPaused } = member;
    const isThrough = received === nodes.length * (this.sum as GradientSum).bucketCount;
    return sent < this.published || !(isThrough || isPaused || this.isComputing(member));
  }

  private fail(error: unknown, workerId: string): void {
    const reason = describeError(error);
    if (!this.end(new TroupeError("CANCELLED", `the all-reduce failed at ${workerId}: ${reason}`))) return;
    const { generation, step, onFailed } = this.options;
    onFailed({ generation, step, workerId, reason });
  }

  /** @returns false when it was over before */
  private end(error: TroupeError | undefined): boolean {
    if (!this.isOpen) return false;
    this.state = error === undefined ? "complete" : "failed";
    clearTimeout(this.timer);
    for (const { port } of this.joined.values()) {
      if (error === undefined) port.finish();
      else port.fail(error);
    }
    this.totals.clear();
    if (error === undefined) this.options.onComplete?.(performance.now() - this.startedMs);
    return true;
  }
}

function nodeOf({ workerId, nodes }: Joined, node: number): TreeNode {
  if (!(node >= 0 && node < nodes.length))
    throw protocolError(`${workerId}: bucket of node ${node}, but only ${nodes.length} were announced`);
  return nodes[node];
}

/** Sizes are announced before the bytes come, and nodes say whose shards they sum: neither is taken on trust. */
function checkHeader(
  { elementCount, bucketElements, nodes, laterBuckets = 0 }: ReductionHeader,
  { workerId, firstShard, shardCount }: ReductionMember,
): void {
  if (!(bucketElements >= 1 && bucketElements * 4 <= MAX_BUCKET_BYTES))
    throw protocolError(
      `GradientHeader.bucket_elements: expected 1 to ${MAX_BUCKET_BYTES / 4}, got ${bucketElements}`,
    );
  if (!(elementCount >= 1 && elementCount <= bucketElements * MAX_BUCKETS))
    throw protocolError(
      `GradientHeader.element_count: expected 1 to ${MAX_BUCKETS} buckets of ${bucketElements}, got ${elementCount}`,
    );
  const buckets = Math.ceil(elementCount / bucketElements);
  if (!(laterBuckets >= 0 && laterBuckets <= buckets))
    throw protocolError(`GradientHeader.later_buckets: expected 0 to ${buckets}, got ${laterBuckets}`);
  const end = firstShard + shardCount;
  for (const { level, index } of nodes) {
    if (level <= 30 && index * 2 ** level >= firstShard && (index + 1) * 2 ** level <= end) continue;
    throw protocolError(
      `GradientHeader.nodes: ${workerId} computes the ${shardCount} shards from ${firstShard}, node ${level}/${index} covers others`,
    );
  }
}
