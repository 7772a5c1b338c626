/**
 * The all-reduce of one step over the bulk channel: the vector is cut into one contiguous part per reducer (the
 * coordinator, or every learner), each part goes to its reducer and comes back summed. A learner that reduces adds its
 * own part without a network. The tree, hence every bit, is the same whoever adds.
 */
import type { BulkAddress } from "../reduce/bulk-connection.js";
import type { BulkServer } from "../reduce/bulk-server.js";
import { Reduction, type MemberPort, type ReductionFailure } from "../reduce/reduction.js";
import { encodeGradient, type WireFormat } from "../rpc/codec/gradient.js";
import type { Exchange__Output } from "../rpc/generated/troupe/v1/Exchange.js";
import type { Reducer__Output } from "../rpc/generated/troupe/v1/Reducer.js";
import { cancelled, makeDeferred, type Deferred } from "../shared/abort.js";
import { TroupeError, errorCodeOf, describeError } from "../shared/errors.js";
import { BulkLink, type Part } from "./bulk-link.js";
import { ALL_FINAL, finalBuckets, type GradientProgress } from "./gradient-progress.js";
import type { GradientNode, StepKey } from "./gradient-sync.js";
import type { TotalGradient } from "./total-gradient.js";

export interface BulkExchangeOptions {
  readonly workerId: string;
  readonly wire: WireFormat;
  readonly bucketElements: number;
  readonly bucketTimeoutMs: number;
  /** Where the coordinator is reached. */
  readonly coordinatorHost: string;
  /** See BulkLinkOptions. */
  readonly dialTimeoutMs?: number;
  readonly onBytes: (direction: "in" | "out", bytes: number) => void;
  /** A reduction at this learner failed, or a connection to another reducer: who is suspected. */
  readonly onFailed: (failure: ReductionFailure) => void;
}

/** Yields to the sockets after so many local buckets. */
const LOCAL_BURST = 4;

export class BulkExchange {
  private readonly link: BulkLink;
  private reduction: Reduction | undefined;

  /** @param server where other learners reach this one; undefined when it reduces nothing */
  constructor(
    private readonly options: BulkExchangeOptions,
    private readonly server: BulkServer | undefined,
  ) {
    this.link = new BulkLink(options);
  }

  /** Lets the members of a generation in, before their gradients are computed. */
  open({ generation, step }: StepKey, shardCount: number, exchange: Exchange__Output): void {
    this.stop("a newer generation was opened");
    const isReducer = exchange.reducers.some(({ workerId }) => workerId === this.options.workerId);
    if (!isReducer) return;
    const { wire, bucketTimeoutMs, onBytes, onFailed } = this.options;
    const members = exchange.contributors;
    this.reduction = new Reduction({
      ...{ generation, step, shardCount, members, wire, bucketTimeoutMs, onBytes, onFailed },
    });
    this.server?.open({ reduction: this.reduction, secret: exchange.secret });
  }

  /** Ends the open generation. Idempotent. */
  stop(reason: string): void {
    this.reduction?.close(reason);
    this.reduction = undefined;
    this.server?.open(undefined);
  }

  close(): void {
    this.stop("the session ended");
    this.link.close();
    this.server?.close();
  }

  /** Sums into `total`. @throws {TroupeError} whatever ended the step; `total` and the nodes are worthless then */
  async run(
    key: StepKey,
    nodes: readonly GradientNode[],
    total: TotalGradient,
    elementCount: number,
    exchange: Exchange__Output,
    signal: AbortSignal,
    progress: GradientProgress = ALL_FINAL,
  ): Promise<void> {
    const { reducers } = exchange;
    const { bucketElements } = this.options;
    const ended = new AbortController();
    const stop = AbortSignal.any([signal, ended.signal]);
    const parts = reducers.map(async (reducer, i) => {
      const firstBucket = Math.floor((i * total.bucketCount) / reducers.length);
      const endBucket = Math.floor(((i + 1) * total.bucketCount) / reducers.length);
      if (firstBucket === endBucket) return;
      const start = firstBucket * bucketElements;
      const end = Math.min(endBucket * bucketElements, elementCount);
      const bucketCount = endBucket - firstBucket;
      const part: Part = {
        open: {
          secret: exchange.secret.toString("hex"),
          workerId: this.options.workerId,
          ...{ generation: key.generation, step: key.step },
          nodes: nodes.map(({ level, index }) => ({ level, index })),
          elementCount: end - start,
          bucketElements,
          laterBuckets: bucketCount - finalBuckets(progress, { start, end, bucketElements }),
        },
        nodes: nodes.map(({ gradients }) => gradients.subarray(start, end)),
        ...{ bucketElements, firstBucket, bucketCount, total, rest: progress.rest },
      };
      if (reducer.workerId === this.options.workerId) await this.reduceHere(part, stop);
      else await this.reduceThere(reducer, part, key, exchange, stop);
    });
    try {
      await Promise.all(parts);
    } catch (error) {
      ended.abort(error);
      await Promise.allSettled(parts);
      if (signal.aborted) throw cancelled(signal);
      throw error;
    }
  }

  private async reduceThere(
    { workerId, host, port }: Reducer__Output,
    part: Part,
    { generation, step }: StepKey,
    { secret, isEncrypted }: Exchange__Output,
    signal: AbortSignal,
  ): Promise<void> {
    const address: BulkAddress = {
      host: host || this.options.coordinatorHost,
      port,
      ...(isEncrypted ? { key: { identity: String(generation), secret } } : {}),
    };
    try {
      await this.link.exchange(address, part, signal);
    } catch (error) {
      if (workerId !== "" && !signal.aborted && errorCodeOf(error) === "UNREACHABLE")
        this.options.onFailed({ generation, step, workerId, reason: describeError(error) });
      throw error;
    }
  }

  private async reduceHere({ open, nodes, total, ...part }: Part, signal: AbortSignal): Promise<void> {
    const { reduction } = this;
    const { wire, workerId } = this.options;
    if (reduction === undefined)
      throw new TroupeError("CANCELLED", `generation ${open.generation} was given up`);
    const done = makeDeferred<void>();
    let gate: Deferred<void> | undefined;
    let received = 0;
    const port: MemberPort = {
      send: (bucket, bytes, onSent) => {
        total.accept(part.firstBucket + bucket, bytes);
        received += 1;
        if (received === part.bucketCount) done.resolve();
        // Not before the caller has booked the bucket.
        queueMicrotask(onSent);
      },
      pause: () => (gate ??= makeDeferred()),
      resume: () => {
        gate?.resolve();
        gate = undefined;
      },
      finish: () => undefined,
      fail: (error) => done.reject(error),
    };
    const give = () => done.reject(cancelled(signal));
    signal.addEventListener("abort", give, { once: true });
    const contribution = reduction.join(workerId, open, port);
    const add = async () => {
      for (let bucket = 0; bucket < part.bucketCount; bucket++) {
        if (bucket === part.bucketCount - open.laterBuckets) await Promise.race([part.rest, done.promise]);
        for (const [node, values] of nodes.entries()) {
          const slot = contribution.pool.take(contribution.bytesOf(node, bucket));
          const piece = values.subarray(bucket * part.bucketElements, (bucket + 1) * part.bucketElements);
          slot.set(encodeGradient(piece, wire));
          contribution.add(node, bucket, slot);
          if (gate !== undefined) await Promise.race([(gate as Deferred<void>).promise, done.promise]);
        }
        if (bucket % LOCAL_BURST === LOCAL_BURST - 1) await new Promise(setImmediate);
      }
    };
    try {
      await Promise.all([done.promise, add()]);
    } finally {
      signal.removeEventListener("abort", give);
    }
  }
}
