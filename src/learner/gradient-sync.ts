/**
 * The learner's end of the all-reduce: streams its tree nodes up in buckets, takes the totals down as they come.
 * All-or-nothing: it returns the whole sum, or throws (deadline, aborted step, lost coordinator) and nothing changed.
 */
import { once } from "node:events";
import type * as grpc from "@grpc/grpc-js";
import { CHUNK_BYTES } from "../rpc/channel-options.js";
import { deadlineIn } from "../rpc/deadlines.js";
import { decodeGradient, encodeGradient, type WireFormat } from "../rpc/codec/gradient.js";
import type { GradientChunk, GradientChunk__Output } from "../rpc/generated/troupe/v1/GradientChunk.js";
import type { Sender } from "../rpc/generated/troupe/v1/Sender.js";
import { fromServiceError } from "../rpc/status.js";
import { cancelled } from "../shared/abort.js";
import { protocolError } from "../shared/errors.js";
import type { Clients } from "../worker/coordinator-link.js";

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
  ) {}

  /**
   * @param nodes what this learner contributes; empty when there are more learners than micro-shards
   * @param elementCount elements of one gradient
   * @returns the sum over all micro-shards of the minibatch, the same bits on every learner
   */
  async allReduce(
    { generation, step }: StepKey,
    nodes: readonly GradientNode[],
    elementCount: number,
    signal: AbortSignal,
  ): Promise<Float32Array> {
    const bucketCount = Math.ceil(elementCount / BUCKET_ELEMENTS);
    if (signal.aborted) throw cancelled(signal);
    const call = this.clients.learner.allReduce({ deadline: deadlineIn(this.options.timeoutMs) } as never);
    // Reading it throws what matters; cancelling a call that nobody reads any more would end the process.
    call.on("error", () => undefined);
    const cancel = () => call.cancel();
    signal.addEventListener("abort", cancel, { once: true });
    try {
      const [total] = await Promise.all([
        this.receive(call, elementCount, bucketCount),
        this.send(call, { generation, step }, nodes, elementCount),
      ]);
      return total;
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

  private async receive(
    call: AsyncIterable<unknown>,
    elementCount: number,
    bucketCount: number,
  ): Promise<Float32Array> {
    const total = new Float32Array(elementCount);
    let received = 0;
    for await (const message of call) {
      const { bucket: chunk } = message as GradientChunk__Output;
      if (!chunk) throw protocolError("GradientChunk: expected a bucket, got none");
      const start = chunk.bucket * BUCKET_ELEMENTS;
      const length = Math.min(BUCKET_ELEMENTS, elementCount - start);
      this.options.onBytes("in", chunk.values.byteLength);
      total.set(decodeGradient(chunk.values, this.options.wire, length, `bucket ${chunk.bucket}`), start);
      received += 1;
    }
    if (received !== bucketCount)
      throw protocolError(`all-reduce: expected ${bucketCount} buckets, got ${received}`);
    return total;
  }
}
