import * as tf from "@tensorflow/tfjs";
import type { Scalar, Tensor } from "@tensorflow/tfjs";

export interface PolicyLossInput {
  /** log π_θ(token), the only argument the loss is differentiated by */
  readonly logprobs: Tensor;
  /** log π_old(token), as sampled */
  readonly oldLogprobs: Tensor;
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

/**
 * PPO's clipped surrogate.
 *
 *   ratio = exp((logp − logp_old)·mask)
 *   loss  = Σ mask · max(−Â·ratio, −Â·clip(ratio, 1 ± cliprange)) / denominator
 *
 * Losses (and gradients) of shards add up to that of the whole minibatch, however it is cut.
 *
 * All tensors are f32 of one shape, say `[B, T]`, with entry (b, t) of each about the same token; entries with mask 0
 * must be finite and are otherwise ignored.
 * @param options.cliprange half width of the ratio's clip, above 0; default setting 0.2
 * @returns loss, and sums that take no part in its gradient
 * @see Schulman et al. 2017, arXiv:1707.06347 eq. 7; DeepSpeedExamples 83757d9c `actor_loss_fn`, which divides by the
 *   micro-batch's own token count instead
 */
export function policyLoss(
  { logprobs, oldLogprobs, advantages, mask, denominator }: PolicyLossInput,
  { cliprange }: { readonly cliprange: number },
): { loss: Scalar; sums: PolicyLossSums } {
  const logRatio = tf.mul(tf.sub(logprobs, oldLogprobs), mask);
  const ratio = tf.exp(logRatio);
  const gain = tf.neg(advantages);
  const unclipped = tf.mul(gain, ratio);
  const clipped = tf.mul(gain, tf.clipByValue(ratio, 1 - cliprange, 1 + cliprange));
  const total = tf.sum(tf.mul(tf.maximum(unclipped, clipped), mask));
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
    },
  };
}
