/**
 * The learner's end of the all-reduce: sends its tree nodes in buckets, takes the totals as they come. All-or-nothing:
 * it returns the whole sum, or throws (deadline, aborted step, lost coordinator) and nothing changed.
 */
import { CHUNK_BYTES } from "../rpc/channel-options.js";
import type { WireFormat } from "../rpc/codec/gradient.js";
import type { Exchange__Output } from "../rpc/generated/troupe/v1/Exchange.js";
import type { Sender } from "../rpc/generated/troupe/v1/Sender.js";
import { fromServiceError } from "../rpc/status.js";
import { cancelled } from "../shared/abort.js";
import type { Clients } from "../worker/coordinator-link.js";
import type { BulkExchange } from "./bulk-exchange.js";
import { CallExchange } from "./call-exchange.js";
import { ALL_FINAL, finalBuckets, type GradientProgress } from "./gradient-progress.js";
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
  /**
   * For the whole sum, milliseconds: as long as the coordinator waits for the whole attempt, so that it is the one who
   * gives up and learners do not take each other for lost.
   */
  readonly timeLimitMs: number;
}

export const BUCKET_ELEMENTS = CHUNK_BYTES / Float32Array.BYTES_PER_ELEMENT;

export interface GradientSyncOptions {
  readonly wire: WireFormat;
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
   * @param progress what is not final yet is sent when it is
   */
  async allReduce(
    { generation, step, exchange, timeLimitMs }: StepRoute,
    nodes: readonly GradientNode[],
    elementCount: number,
    signal: AbortSignal,
    progress: GradientProgress = ALL_FINAL,
  ): Promise<ReducedGradient> {
    if (signal.aborted) throw cancelled(signal);
    const values = nodes.at(0)?.gradients ?? new Float32Array(elementCount);
    const total = new TotalGradient(values, BUCKET_ELEMENTS, this.options.wire);
    if (exchange && this.bulk) {
      const inTime = AbortSignal.any([signal, AbortSignal.timeout(timeLimitMs)]);
      await this.bulk.run({ generation, step }, nodes, total, elementCount, exchange, inTime, progress);
      return total.result();
    }
    const { wire, onBytes } = this.options;
    const readyBuckets = finalBuckets(progress, {
      ...{ start: 0, end: elementCount, bucketElements: BUCKET_ELEMENTS },
    });
    const header = {
      ...{ sender: this.sender, generation, step, elementCount, bucketElements: BUCKET_ELEMENTS },
      laterBuckets: total.bucketCount - readyBuckets,
      nodes: nodes.map(({ level, index }) => ({ level, index })),
    };
    const parts = nodes.map(({ gradients }) => gradients);
    const call = new CallExchange({ wire, onBytes }, header, parts, total, progress.rest);
    try {
      await call.run(this.clients.gradients, timeLimitMs, signal);
    } catch (error) {
      if (signal.aborted) throw cancelled(signal);
      throw fromServiceError(error, `all-reduce of step ${step}`);
    }
    return total.result();
  }
}
