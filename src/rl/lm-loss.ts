import * as tf from "@tensorflow/tfjs";
import type { Scalar, Tensor } from "@tensorflow/tfjs";

export interface LmLossInput {
  /** log π_θ(token), the only argument the loss is differentiated by */
  readonly logprobs: Tensor;
  /** 0/1, 1 where the token is a training target */
  readonly mask: Tensor;
  /** Scalar: target tokens of the whole batch, over all micro-shards and learners. */
  readonly denominator: Tensor;
}

/**
 * Next-token cross-entropy (supervised fine-tuning, and the ptx term of PPO).
 *
 *   loss = −coef · Σ mask · logp / denominator
 *
 * Shards add up as in `policyLoss`; shapes and masking as there.
 * @param coef weight of the term; 1 for fine-tuning, DeepSpeed-Chat's `unsup_coef` (27.8) for ptx
 */
export function lmLoss(
  { logprobs, mask, denominator }: LmLossInput,
  coef = 1,
): { loss: Scalar; sums: { nllSum: Scalar; targetTokens: Scalar } } {
  const nll = tf.neg(tf.sum(tf.mul(logprobs, mask))) as Scalar;
  const mean = tf.div(nll, denominator) as Scalar;
  return { loss: coef === 1 ? mean : tf.mul(mean, coef), sums: { nllSum: nll, targetTokens: tf.sum(mask) } };
}
