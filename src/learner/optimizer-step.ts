/**
 * One optimizer step as a learner lives it. The losses themselves are in src/rl (policy-loss, value-loss, ...), the
 * programs that differentiate them in ./programs.
 */
import type { MicroShard } from "../rpc/codec/shard.js";
import type { ComputePool } from "../worker/compute-pool.js";
import type { GradientSync, StepKey, StepRoute } from "./gradient-sync.js";
import type * as learnerThread from "./learner-thread.js";
import type { ShardGradients } from "./shard-gradients.js";
import { nextDigest } from "./state-digest.js";

export interface StepOrder extends StepRoute {
  readonly shards: readonly MicroShard[];
  readonly shardCount: number;
  /** Counted tokens (sft, ppo) or pairs (reward) of the whole minibatch, and the ptx tokens mixed in. */
  readonly denominators: { readonly main: number; readonly ptx: number };
  readonly learningRates: Readonly<Record<string, number>>;
  /** How long the coordinator waits for the attempt, milliseconds. */
  readonly timeLimitMs: number;
}

export interface Vote extends StepKey {
  /** Every element of the sum and every model's norm. */
  readonly isFinite: boolean;
  readonly gradientHash: number;
  /** Of the state after the step, see ./state-digest; "" when not finite. */
  readonly digest: string;
  readonly stats: readonly { readonly shard: number; readonly values: Readonly<Record<string, number>> }[];
  readonly computeMs: number;
  /** After `computeMs`. */
  readonly allReduceMs: number;
  /** At the end of `computeMs`: gradients travelled already. Kept here. @default 0 */
  readonly overlapMs?: number;
}

/** What was voted for: enough to apply it later, should the decision not be heard. */
export interface VotedUpdate {
  readonly gradients: Float32Array;
  /** Before clipping, by role. */
  readonly gradNorms: Readonly<Record<string, number>>;
  readonly learningRates: Readonly<Record<string, number>>;
}

/** What the coordinator decides once every vote is in. */
export type Decision = "apply" | "skip";

export interface StepDependencies {
  readonly compute: ComputePool<typeof learnerThread>;
  readonly shardGradients: ShardGradients;
  readonly sync: GradientSync;
  /** Digest of the state before the step. */
  readonly digest: string;
  /** Tells the coordinator that from here on this learner waits for the others. */
  readonly noteComputed: () => void;
  /** Sends the vote; resolves with the decision, or rejects when the step is aborted. */
  readonly vote: (vote: Vote, update: VotedUpdate) => Promise<Decision>;
  /** Aborts when the coordinator gives the step up (a member was lost): nothing was changed. */
  readonly signal: AbortSignal;
}

/** @returns gradient norms by role when applied, undefined when the step is skipped */
export async function optimizerStep(
  order: StepOrder,
  { compute, shardGradients, sync, digest, noteComputed, vote, signal }: StepDependencies,
): Promise<Readonly<Record<string, number>> | undefined> {
  const startedMs = performance.now();
  // 1. ∇ loss of my micro-shards, model by model, already added along the tree inside my range.
  const { begun, ended } = shardGradients.of(order, signal);
  const computing = ended.then(({ stats }) => {
    noteComputed();
    return { stats, computedMs: performance.now() };
  });
  // 2. Σ over all learners; the first model's gradient travels while the next one's is computed.
  const reducing = begun.then(async ({ nodes, elementCount, progress }) => {
    const begunMs = performance.now();
    const total = await sync.allReduce(order, nodes, elementCount, signal, progress);
    return { ...total, spare: nodes.slice(1).map(({ gradients }) => gradients), begunMs };
  });
  // A computation cannot be interrupted: a step that fails is over when both are.
  await Promise.allSettled([computing, reducing]);
  const { stats, computedMs } = await computing;
  const { values, isFinite: hasFiniteElements, hash, spare, begunMs } = await reducing;
  const reducedMs = performance.now();
  const { gradients, gradNorms } = hasFiniteElements
    ? await compute.run("measureGradients", values, [values])
    : { gradients: values, gradNorms: {} };
  const isFinite = hasFiniteElements && Object.values(gradNorms).every(Number.isFinite);
  // 3. Vote: nobody moves unless everybody holds the same finite sum, and can apply it.
  const ballot = {
    generation: order.generation,
    step: order.step,
    isFinite,
    gradientHash: hash,
    digest: isFinite ? nextDigest(digest, order.step, hash) : "",
    stats,
    computeMs: computedMs - startedMs,
    allReduceMs: reducedMs - computedMs,
    overlapMs: Math.max(0, computedMs - begunMs),
  };
  const update = { gradients, gradNorms, learningRates: order.learningRates };
  const decision = await vote(ballot, update);
  if (decision === "skip") return undefined;
  // 4. Clip to the global norm, AdamW, EMA.
  await compute.run("applyGradients", { ...update, optimizerStep: order.step, spare }, [gradients, ...spare]);
  return gradNorms;
}
