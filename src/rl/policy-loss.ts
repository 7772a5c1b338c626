import * as tf from "@tensorflow/tfjs";
import type { Scalar, Tensor } from "@tensorflow/tfjs";

export interface PolicyLossInput {
  /** log π_θ(token), the only argument the loss is differentiated by */
  readonly logprobs: Tensor;
  /** log π_old(token), as sampled */
  readonly oldLogprobs: Tensor;
  /** log π_prox(token), the policy at the start of the update; needed with `importance`, else π_old. */
  readonly proximalLogprobs?: Tensor;
  readonly advantages: Tensor;
  /** 0/1 */
  readonly mask: Tensor;
  /** Scalar: counted tokens of the whole minibatch, over all micro-shards and learners. */
  readonly denominator: Tensor;
}

/** Sums over counted tokens; divide by `tokens` summed over the same shards. */
export interface PolicyLossSums {
  readonly tokens: Scalar;
  /** tokens where the clipped surrogate is the larger (active) one */
  readonly clipFracSum: Scalar;
  /** (ratio − 1) − log ratio: the k3 estimate of KL(π_old ‖ π_θ), never negative up to rounding */
  readonly approxKlSum: Scalar;
  readonly ratioSum: Scalar;
  readonly ratioSquaredSum: Scalar;
  /** |log ratio|; 0 before the first update if learner and rollout compute alike */
  readonly absLogRatioSum: Scalar;
}

/** Sums about the weights that correct for staleness. */
export interface ImportanceSums {
  /** Weights as used: 0 beyond the cap with `decoupled`, the cap with `truncated`. */
  readonly importanceSum: Scalar;
  readonly importanceSquaredSum: Scalar;
  /** tokens with π_prox / π_old above the cap */
  readonly importanceCappedSum: Scalar;
}

/** Correction for experience that an older policy sampled. */
export interface Importance {
  readonly kind: "decoupled" | "truncated";
  /** Largest weight, at least 1. */
  readonly cap: number;
}

export interface PolicyLossOptions {
  /** Half width of the ratio's clip, above 0; default setting 0.2. */
  readonly cliprange: number;
  /** null: the experience is of the policy at the start of the update, or is treated so. @default null */
  readonly importance?: Importance | null;
}

/**
 * PPO's clipped surrogate.
 *
 *   ratio  = exp((logp − logp_prox)·mask)                                  logp_prox = logp_old without `importance`
 *   weight = w = exp((logp_prox − logp_old)·mask)                          1 without `importance`
 *            decoupled: w ≤ cap ? w : 0        truncated: min(w, cap)
 *   loss   = Σ mask · weight · max(−Â·ratio, −Â·clip(ratio, 1 ± cliprange)) / denominator
 *
 * Fresh experience has π_prox = π_old: ratio and loss are then the same in all forms. With stale experience the plain
 * form clips around a policy that is already left behind, so that tokens can be clipped before the first step; the
 * others clip around the policy being updated, as PPO's trust region means it, and let the weight alone account for the
 * age of the sample. The denominator counts every token of the mask, those of weight 0 included.
 *
 * Losses (and gradients) of shards add up to that of the whole minibatch, however it is cut.
 *
 * All tensors are f32 of one shape, say `[B, T]`, with entry (b, t) of each about the same token; entries with mask 0
 * must be finite and are otherwise ignored.
 * @returns loss, and sums that take no part in its gradient (`ImportanceSums` among them only with `importance`)
 * @see Schulman et al. 2017, arXiv:1707.06347 eq. 7; DeepSpeedExamples 83757d9c `actor_loss_fn`, which divides by the
 *   micro-batch's own token count instead; Hilton et al. 2022, arXiv:2110.00641 (decoupled); Fu et al. 2025,
 *   arXiv:2505.24298 (AReaL, eq. 5); truncation as verl's and OpenRLHF's `tis`
 */
export function policyLoss(
  { logprobs, oldLogprobs, proximalLogprobs = oldLogprobs, advantages, mask, denominator }: PolicyLossInput,
  { cliprange, importance = null }: PolicyLossOptions,
): { loss: Scalar; sums: PolicyLossSums & Partial<ImportanceSums> } {
  const logRatio = tf.mul(tf.sub(logprobs, proximalLogprobs), mask);
  const ratio = tf.exp(logRatio);
  const gain = tf.neg(advantages);
  const unclipped = tf.mul(gain, ratio);
  const clipped = tf.mul(gain, tf.clipByValue(ratio, 1 - cliprange, 1 + cliprange));
  const surrogate = tf.mul(tf.maximum(unclipped, clipped), mask);
  const weighted =
    importance === null ? null : weigh(surrogate, { oldLogprobs, proximalLogprobs, mask }, importance);
  const total = tf.sum(weighted?.surrogate ?? surrogate);
  const isClipped = tf.cast(tf.greater(clipped, unclipped), "float32");
  return {
    loss: tf.div(total, denominator),
    sums: {
      tokens: tf.sum(mask),
      clipFracSum: tf.sum(tf.mul(isClipped, mask)),
      // masked entries have ratio 1 and log ratio 0: they add nothing
      approxKlSum: tf.sum(tf.sub(tf.sub(ratio, 1), logRatio)),
      ratioSum: tf.sum(tf.mul(ratio, mask)),
      ratioSquaredSum: tf.sum(tf.mul(tf.mul(ratio, ratio), mask)),
      absLogRatioSum: tf.sum(tf.maximum(logRatio, tf.neg(logRatio))),
      ...weighted?.sums,
    },
  };
}

function weigh(
  surrogate: Tensor,
  {
    oldLogprobs,
    proximalLogprobs,
    mask,
  }: Required<Pick<PolicyLossInput, "oldLogprobs" | "proximalLogprobs" | "mask">>,
  { kind, cap }: Importance,
): { surrogate: Tensor; sums: ImportanceSums } {
  const full = tf.exp(tf.mul(tf.sub(proximalLogprobs, oldLogprobs), mask));
  const capped = tf.minimum(full, cap);
  const isBeyond = tf.cast(tf.greater(full, capped), "float32");
  const weight = kind === "truncated" ? capped : tf.mul(capped, tf.sub(1, isBeyond));
  return {
    surrogate: tf.mul(surrogate, weight),
    sums: {
      importanceSum: tf.sum(tf.mul(weight, mask)),
      importanceSquaredSum: tf.sum(tf.mul(tf.mul(weight, weight), mask)),
      importanceCappedSum: tf.sum(tf.mul(isBeyond, mask)),
    },
  };
}
