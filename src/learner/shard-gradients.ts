/**
 * The gradients of a learner's micro-shards, from the compute thread. A computation cannot be interrupted; when its
 * attempt is given up meanwhile, the step is done again, most likely with the same micro-shards: the result is kept for
 * that.
 */
import { MessageChannel } from "node:worker_threads";
import type { ComputePool } from "../worker/compute-pool.js";
import { cancelled, makeDeferred } from "../shared/abort.js";
import { ALL_FINAL, type GradientProgress } from "./gradient-progress.js";
import type { GradientsSoFar, ShardsResult } from "./learner-compute.js";
import type * as learnerThread from "./learner-thread.js";
import type { StepOrder } from "./optimizer-step.js";

/** Times the limit of the attempt it was begun for: the one after that has twice as long. */
const OVERDUE = 2;

interface Kept {
  readonly order: StepOrder;
  readonly state: object | null;
  readonly result: ShardsResult;
}

/** Nodes that can be sent, the rest of them as `progress` says. */
export type SendableGradients = Pick<ShardsResult, "nodes" | "elementCount"> & {
  readonly progress: GradientProgress;
};

export interface Computation {
  /** When the first part of the nodes is final. Rejects as `ended` does. */
  readonly begun: Promise<SendableGradients>;
  /** @throws {TroupeError} CANCELLED when the attempt was given up meanwhile; whatever the computation ends with */
  readonly ended: Promise<ShardsResult>;
}

export class ShardGradients {
  private kept: Kept | undefined;
  /** Calls that have not returned, those of earlier sessions included. */
  private readonly running = new Set<{
    readonly step: number;
    readonly sinceMs: number;
    readonly limitMs: number;
  }>();

  /** @param stateOf an object that is another one after every change of the parameters; null while they are undefined */
  constructor(
    private readonly compute: ComputePool<typeof learnerThread>,
    private readonly stateOf: () => object | null,
  ) {}

  of(order: StepOrder, signal: AbortSignal): Computation {
    const begun = makeDeferred<SendableGradients>();
    const ended = this.resultOf(order, signal, begun.resolve);
    ended.then((result) => begun.resolve({ ...result, progress: ALL_FINAL }), begun.reject);
    return { begun: begun.promise, ended };
  }

  private async resultOf(
    order: StepOrder,
    signal: AbortSignal,
    begin: (gradients: SendableGradients) => void,
  ): Promise<ShardsResult> {
    const state = this.stateOf();
    const { kept } = this;
    this.kept = undefined;
    if (kept !== undefined && state !== null && kept.state === state && isSameWork(kept.order, order))
      return kept.result;
    const rest = makeDeferred<void>();
    let isHandedOut = false;
    const { port1, port2 } = new MessageChannel();
    port1.on("message", ({ nodes, elementCount, finalElements }: GradientsSoFar) => {
      if (signal.aborted) return;
      isHandedOut = true;
      begin({ nodes, elementCount, progress: { finalElements, rest: rest.promise } });
    });
    // Who computes all of it has nobody to send it to.
    const computation =
      order.shards.length === order.shardCount
        ? this.compute.run("computeShards", order)
        : this.compute.run("computeShards", { ...order, progress: port2 }, [port2]);
    try {
      const result = await this.watch(order.step, order.timeLimitMs, computation);
      rest.resolve();
      if (!signal.aborted) return result;
      // What was handed out may have been overwritten with part of the total.
      if (!isHandedOut) this.kept = { order, state, result };
      throw cancelled(signal);
    } catch (error) {
      rest.reject(error);
      throw error;
    } finally {
      port1.close();
      port2.close();
    }
  }

  /** Notes that a computation of gradients is under way, and how long it may take. */
  async watch<T>(step: number, limitMs: number, computation: Promise<T>): Promise<T> {
    const call = { step, sinceMs: performance.now(), limitMs };
    this.running.add(call);
    try {
      return await computation;
    } finally {
      this.running.delete(call);
    }
  }

  /** The step whose computation has taken much longer than its attempt was given and still has not returned. */
  overdueStep(nowMs: number): number | undefined {
    for (const { step, sinceMs, limitMs } of this.running)
      if (nowMs - sinceMs > OVERDUE * limitMs) return step;
    return undefined;
  }
}

/** Rows follow from the step's number: its manifest is in the journal. */
const isSameWork = (a: StepOrder, b: StepOrder): boolean =>
  a.step === b.step &&
  a.shardCount === b.shardCount &&
  a.denominators.main === b.denominators.main &&
  a.denominators.ptx === b.denominators.ptx &&
  a.shards.length === b.shards.length &&
  a.shards.every(({ index }, i) => index === b.shards[i].index);
