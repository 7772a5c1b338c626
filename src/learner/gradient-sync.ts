/**
 * The learner's end of the all-reduce: streams its tree nodes up in buckets, takes the totals down as they come.
 * All-or-nothing: it returns the whole sum, or throws (deadline, aborted step, lost coordinator) and nothing changed.
 */
import { once } from "node:events";
import type * as grpc from "@grpc/grpc-js";
import { CHUNK_BYTES } from "../rpc/channel-options.js";
import { deadlineIn } from "../rpc/deadlines.js";
import { encodeGradient, type WireFormat } from "../rpc/codec/gradient.js";
import type { GradientChunk, GradientChunk__Output } from "../rpc/generated/troupe/v1/GradientChunk.js";
import type { Exchange__Output } from "../rpc/generated/troupe/v1/Exchange.js";
import type { Sender } from "../rpc/generated/troupe/v1/Sender.js";
import { fromServiceError } from "../rpc/status.js";
import { cancelled } from "../shared/abort.js";
import { protocolError } from "../shared/errors.js";
import type { Clients } from "../worker/coordinator-link.js";
import type { BulkExchange } from "./bulk-exchange.js";
import { TotalGradient, type ReducedGradient } from "./total-gradient.js";

/** One node of the reduction tree and its gradient, all roles concatenated in role-name order. */
export interface GradientNode {
  readonly level: number;
  readonly index: number;
  readonly gradients: Float32Array;
}

export interface StepKey {
  readonly generation: number;
  readonly step: number;
}

/** Over which channel the gradients of a step travel; null: the AllReduce call. */
export interface StepRoute extends StepKey {
  readonly exchange?: Exchange__Output | null;
}

export const BUCKET_ELEMENTS = CHUNK_BYTES / Float32Array.BYTES_PER_ELEMENT;

export interface GradientSyncOptions {
  readonly wire: WireFormat;
  /** For the whole sum of one step. */
  readonly timeoutMs: number;
  readonly onBytes: (direction: "in" | "out", bytes: number) => void;
}

export class GradientSync {
  constructor(
    private readonly clients: Clients,
    private readonly sender: Sender,
    private readonly options: GradientSyncOptions,
    /** The bulk channel; without it everything goes through the AllReduce call. */
    private readonly bulk?: BulkExchange,
  ) {}

  /**
   * @param nodes what this learner contributes; empty when there are more learners than micro-shards. Taken over: the
   *   total may be written there
   * @param elementCount elements of one gradient
   */
  async allReduce(
    { generation, step, exchange }: StepRoute,
    nodes: readonly GradientNode[],
    elementCount: number,
    signal: AbortSignal,
  ): Promise<ReducedGradient> {
    if (signal.aborted) throw cancelled(signal);
    const values = nodes.at(0)?.gradients ?? new Float32Array(elementCount);
    const total = new TotalGradient(values, BUCKET_ELEMENTS, this.options.wire);
    if (exchange && this.bulk) {
      const inTime = AbortSignal.any([signal, AbortSignal.timeout(this.options.timeoutMs)]);
      await this.bulk.run({ generation, step }, nodes, total, elementCount, exchange, inTime);
      return total.result();
    }
    const call = this.clients.learner.allReduce({ deadline: deadlineIn(this.options.timeoutMs) } as never);
    // Reading it throws what matters; cancelling a call that nobody reads any more would end the process.
    call.on("error", () => undefined);
    const cancel = () => call.cancel();
    signal.addEventListener("abort", cancel, { once: true });
    try {
      await Promise.all([
        this.receive(call, total),
        this.send(call, { generation, step }, nodes, elementCount),
      ]);
      return total.result();
    } catch (error) {
      call.cancel();
      if (signal.aborted) throw cancelled(signal);
      throw fromServiceError(error, `all-reduce of step ${step}`);
    } finally {
      signal.removeEventListener("abort", cancel);
    }
  }

  private async send(
    call: grpc.ClientDuplexStream<GradientChunk, GradientChunk__Output>,
    { generation, step }: StepKey,
    nodes: readonly GradientNode[],
    elementCount: number,
  ): Promise<void> {
    const bucketCount = Math.ceil(elementCount / BUCKET_ELEMENTS);
    call.write({
      header: {
        sender: this.sender,
        generation,
        step,
        nodes: nodes.map(({ level, index }) => ({ level, index })),
        elementCount,
        bucketElements: BUCKET_ELEMENTS,
      },
    });
    for (let bucket = 0; bucket < bucketCount; bucket++) {
      for (const [node, { gradients }] of nodes.entries()) {
        const values = gradients.subarray(
          bucket * BUCKET_ELEMENTS,
          Math.min((bucket + 1) * BUCKET_ELEMENTS, elementCount),
        );
        // The stream counts messages, not bytes: stop when it says so, or it would hold the whole gradient again.
        const encoded = encodeGradient(values, this.options.wire);
        this.options.onBytes("out", encoded.byteLength);
        if (!call.write({ bucket: { node, bucket, values: encoded } })) await once(call, "drain");
      }
    }
    call.end();
  }

  private async receive(call: AsyncIterable<unknown>, total: TotalGradient): Promise<void> {
    for await (const message of call) {
      const { bucket } = message as GradientChunk__Output;
      if (!bucket) throw protocolError("GradientChunk: expected a bucket, got none");
      this.options.onBytes("in", bucket.values.byteLength);
      total.accept(bucket.bucket, bucket.values);
    }
  }
}
