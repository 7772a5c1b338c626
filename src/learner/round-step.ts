/**
 * One round of parameter averaging as a learner lives it: optimizer steps on its own rows, then one average over all
 * learners. The arithmetic is in ./parameter-round.
 */
import { fold } from "../kernels/gradient-kernels.js";
import type { ComputePool } from "../worker/compute-pool.js";
import { abortable, cancelled, makeDeferred, type Deferred } from "../shared/abort.js";
import { errorCodeOf } from "../shared/errors.js";
import type { GradientSync, StepKey } from "./gradient-sync.js";
import type { ShardStats } from "./learner-compute.js";
import type * as learnerThread from "./learner-thread.js";
import type { Decision, StepOrder, Vote } from "./optimizer-step.js";
import type { OuterStepRequest } from "./parameter-round.js";
import type { ShardGradients } from "./shard-gradients.js";
import { nextDigest } from "./state-digest.js";
import type { TreePosition } from "./tree-sum.js";

/** This learner's rows of one minibatch of the round. */
export interface RoundUpdate extends StepOrder {
  /** Number of its optimizer step since the stage began, from 1. */
  readonly optimizerStep: number;
}

/** Its part in the average. */
export interface AveragePart {
  /** null when it trained nothing and only takes the average. */
  readonly node: TreePosition | null;
  readonly weight: number;
  /** How long the coordinator waits for the average, milliseconds. */
  readonly timeLimitMs: number;
}

/** What the coordinator sends while a round is under way. */
export class RoundFeed {
  private readonly updates: RoundUpdate[] = [];
  private arrival: Deferred<void> = makeDeferred();
  readonly average: Deferred<AveragePart> = makeDeferred();
  /** Others are waiting: the minibatch at hand is the last. */
  isStopped = false;

  /** @param count minibatches of the round */
  constructor(readonly count: number) {}

  push(update: RoundUpdate): void {
    this.updates.push(update);
    this.arrival.resolve();
  }

  stop(): void {
    this.isStopped = true;
    this.arrival.resolve();
  }

  /** The next minibatch in order; undefined when the round was stopped before it came. */
  async next(signal: AbortSignal): Promise<RoundUpdate | undefined> {
    while (this.updates.length === 0 && !this.isStopped) {
      await abortable(this.arrival.promise, signal);
      this.arrival = makeDeferred();
    }
    return this.updates.shift();
  }
}

export interface RoundReport extends StepKey {
  /** Micro-shards trained, each as a part of its minibatch. */
  readonly minibatches: number;
  readonly computeMs: number;
}

export interface RoundDependencies {
  readonly compute: ComputePool<typeof learnerThread>;
  readonly shardGradients: Pick<ShardGradients, "watch">;
  readonly sync: GradientSync;
  readonly feed: RoundFeed;
  /** After every minibatch. */
  readonly trained: (update: RoundUpdate) => void;
  /** Tells the coordinator that the average may begin. */
  readonly report: (report: RoundReport) => void;
  /** Digest of the state before the round. */
  readonly digest: string;
  /** Sends the vote; resolves with the decision, or rejects when the round is aborted. */
  readonly vote: (vote: Vote, round?: OuterStepRequest) => Promise<Decision>;
  /** Aborts when the coordinator gives the round up: the parameters are those from before it. */
  readonly signal: AbortSignal;
}

/** @returns mean gradient norms by role when applied, undefined when the round is skipped */
export async function roundStep(
  key: StepKey,
  dependencies: RoundDependencies,
): Promise<Record<string, number> | undefined> {
  try {
    return await trainAndAverage(key, dependencies);
  } finally {
    // Nothing to do after the outer step; else the parameters of the round's start come back.
    await dependencies.compute.run("rollBack", undefined);
  }
}

async function trainAndAverage(
  { generation, step }: StepKey,
  { compute, shardGradients, sync, feed, trained, report, digest, vote, signal }: RoundDependencies,
): Promise<Record<string, number> | undefined> {
  const startedMs = performance.now();
  // 1. My own optimizer steps.
  const stats = new RoundStats();
  const norms = new MeanNorms();
  let minibatches = 0;
  for (let done = 0; done < feed.count; done++) {
    if (feed.isStopped && done > 0) break;
    const update = await feed.next(signal);
    if (update === undefined) break;
    if (signal.aborted) throw cancelled(signal);
    try {
      const training = compute.run("innerStep", { ...update, innerStep: done + 1 });
      const result = await shardGradients.watch(step, update.timeLimitMs / feed.count, training);
      stats.add(done === 0, update.shardCount, result.stats);
      norms.add(result.gradNorms);
    } catch (error) {
      if (errorCodeOf(error) !== "NUMERIC") throw error;
      const computeMs = performance.now() - startedMs;
      const notFinite = { isFinite: false, gradientHash: 0, digest: "", allReduceMs: 0 };
      await vote({ generation, step, ...notFinite, stats: stats.all(), computeMs });
      return undefined;
    }
    minibatches += update.shards.length / update.shardCount;
    trained(update);
  }
  const computeMs = performance.now() - startedMs;
  report({ generation, step, minibatches, computeMs });
  // 2. Everybody is done, or was told to stop: Σ wᵢ·(θ − θᵢ) over all learners.
  const { node, weight, timeLimitMs } = await abortable(feed.average.promise, signal);
  const averagingMs = performance.now();
  const { values, startCrc32, elementCount } = await compute.run("contribution", node === null ? 0 : weight);
  const nodes = node === null ? [] : [{ ...node, gradients: values }];
  const {
    values: total,
    isFinite,
    hash,
  } = await sync.allReduce({ generation, step, timeLimitMs }, nodes, elementCount, signal);
  // 3. Vote: the same average, and the same parameters to apply it to.
  const gradientHash = fold([startCrc32, hash], 0);
  const outer = { total, step, updates: feed.count };
  const ballot = {
    generation,
    step,
    isFinite,
    gradientHash,
    digest: isFinite ? nextDigest(digest, step, gradientHash) : "",
    stats: stats.all(),
    computeMs,
    allReduceMs: performance.now() - averagingMs,
  };
  const decision = await vote(ballot, outer);
  if (decision === "skip") return undefined;
  // 4. The outer step.
  await compute.run("outerStep", outer, [total]);
  return norms.mean();
}

/** Metric sums of a round by micro-shard: the first minibatch's, and those of all later ones together. */
class RoundStats {
  private readonly byShard = new Map<number, Record<string, number>>();
  private firstShards = 0;

  add(isFirst: boolean, shardCount: number, stats: readonly ShardStats[]): void {
    if (isFirst) this.firstShards = shardCount;
    for (const { shard, values } of stats) {
      const key = isFirst ? shard : this.firstShards + shard;
      const sums = this.byShard.get(key) ?? {};
      for (const [name, value] of Object.entries(values)) sums[name] = (sums[name] ?? 0) + value;
      this.byShard.set(key, sums);
    }
  }

  all(): ShardStats[] {
    return [...this.byShard].map(([shard, values]) => ({ shard, values }));
  }
}

/** Mean gradient norms over the optimizer steps of a round, by model role. */
class MeanNorms {
  private readonly sums: Record<string, number> = {};
  private count = 0;

  add(norms: Readonly<Record<string, number>>): void {
    if (Object.keys(norms).length === 0) return;
    this.count += 1;
    for (const [role, norm] of Object.entries(norms)) this.sums[role] = (this.sums[role] ?? 0) + norm;
  }

  mean(): Record<string, number> {
    return Object.fromEntries(Object.entries(this.sums).map(([role, sum]) => [role, sum / this.count]));
  }
}
