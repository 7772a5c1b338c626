/** The all-reduce of one step through the AllReduce call: buckets up, totals down, each straight from and to its place. */
import { encodeBf16 } from "../kernels/gradient-kernels.js";
import { SlotPool } from "../reduce/slot-pool.js";
import { toColumn } from "../rpc/codec/columns.js";
import { BYTES_PER_ELEMENT, type WireFormat } from "../rpc/codec/gradient.js";
import { MessageReader, bucketHead, envelope } from "../rpc/codec/gradient-messages.js";
import type { GradientCall, GradientChannel } from "../rpc/gradient-channel.js";
import type { GradientHeader } from "../rpc/generated/troupe/v1/GradientHeader.js";
import { troupe } from "../rpc/load-proto.js";
import { METHOD_RULES } from "../rpc/method-rules.js";
import { makeDeferred, type Deferred } from "../shared/abort.js";
import { protocolError } from "../shared/errors.js";
import type { TotalGradient } from "./total-gradient.js";

/** Buckets handed to the connection and not sent yet. */
const IN_FLIGHT = 4;

const { path, requestSerialize } = troupe.v1.LearnerService.service.AllReduce;
const MAX_MESSAGE_BYTES = METHOD_RULES[path].maxRequestBytes;

export interface CallExchangeOptions {
  readonly wire: WireFormat;
  readonly onBytes: (direction: "in" | "out", bytes: number) => void;
}

export class CallExchange {
  private readonly done: Deferred<void> = makeDeferred();
  private readonly halves: SlotPool;
  private inFlight = 0;
  private room: Deferred<void> | undefined;

  /**
   * @param nodes values of the nodes that `header` announces, in its order
   * @param rest resolves when the buckets that come later are final
   */
  constructor(
    private readonly options: CallExchangeOptions,
    private readonly header: GradientHeader & {
      readonly elementCount: number;
      readonly bucketElements: number;
      readonly laterBuckets: number;
    },
    private readonly nodes: readonly Float32Array[],
    private readonly total: TotalGradient,
    private readonly rest: Promise<unknown>,
  ) {
    this.halves = new SlotPool(BYTES_PER_ELEMENT.bf16 * header.bucketElements, 2 * IN_FLIGHT);
  }

  /** Once. @throws {Error} what the server answered, or why there is no answer; `total` is worthless then */
  async run(channel: GradientChannel, timeoutMs: number, signal: AbortSignal): Promise<void> {
    const reader = new MessageReader(
      {
        targetOf: (_node, bucket) => this.targetOf(bucket),
        bucket: (_node, bucket, values) => this.take(bucket, values),
        message: () => {
          throw protocolError("GradientChunk: expected a bucket of the total, got another message");
        },
      },
      MAX_MESSAGE_BYTES,
      (length) => protocolError(`GradientChunk: expected at most ${MAX_MESSAGE_BYTES} bytes, got ${length}`),
    );
    const call = channel.call(timeoutMs, {
      bytes: (data) => reader.read(data),
      ended: (error) => {
        if (error === undefined) this.done.resolve();
        else this.done.reject(error);
        this.room?.resolve();
      },
    });
    const cancel = () => call.cancel();
    signal.addEventListener("abort", cancel, { once: true });
    try {
      await Promise.all([this.done.promise, this.send(call)]);
    } finally {
      signal.removeEventListener("abort", cancel);
      call.cancel();
    }
  }

  private async send(call: GradientCall): Promise<void> {
    const { elementCount, bucketElements, laterBuckets } = this.header;
    const readyBuckets = this.total.bucketCount - laterBuckets;
    call.write([envelope(requestSerialize({ header: this.header }))]);
    for (let start = 0, bucket = 0; start < elementCount; start += bucketElements, bucket++) {
      if (bucket === readyBuckets) await Promise.race([this.rest, this.done.promise]);
      for (const [node, gradient] of this.nodes.entries()) {
        const values = this.encode(gradient.subarray(start, Math.min(start + bucketElements, elementCount)));
        this.options.onBytes("out", values.byteLength);
        this.inFlight += 1;
        call.write([bucketHead(node, bucket, values.byteLength), values], () => {
          if (this.options.wire === "bf16") this.halves.give(values);
          this.inFlight -= 1;
          this.room?.resolve();
        });
        while (this.inFlight >= IN_FLIGHT) {
          this.room = makeDeferred();
          // Rejects when the call has ended.
          await Promise.race([this.room.promise, this.done.promise]);
        }
      }
    }
    call.finish();
  }

  private encode(values: Float32Array): Uint8Array {
    if (this.options.wire === "f32") return toColumn(values);
    const bytes = this.halves.take(BYTES_PER_ELEMENT.bf16 * values.length);
    encodeBf16(values, bytes);
    return bytes;
  }

  private targetOf(bucket: number): Uint8Array {
    const target = this.total.targetOf(bucket);
    if (this.options.wire === "f32") return toColumn(target);
    return this.halves.take(BYTES_PER_ELEMENT.bf16 * target.length);
  }

  private take(bucket: number, values: Uint8Array): void {
    this.options.onBytes("in", values.byteLength);
    if (this.options.wire === "f32") {
      this.total.note(bucket, this.total.targetOf(bucket));
    } else {
      this.total.accept(bucket, values);
      this.halves.give(values);
    }
  }
}
