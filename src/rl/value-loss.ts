import * as tf from "@tensorflow/tfjs";
import type { Scalar, Tensor } from "@tensorflow/tfjs";

export interface ValueLossInput {
  /** V_θ(s), the only argument the loss is differentiated by */
  readonly values: Tensor;
  /** V(s) when the experience was made */
  readonly oldValues: Tensor;
  readonly returns: Tensor;
  /** 0/1 */
  readonly mask: Tensor;
  /** Scalar: counted tokens of the whole minibatch, over all micro-shards and learners. */
  readonly denominator: Tensor;
}

/** Sums over counted tokens. */
export interface ValueLossSums {
  /** tokens where the clipped error is the larger (active) one */
  readonly valueClipFracSum: Scalar;
  /** (V − return)², unclipped */
  readonly valueErrorSum: Scalar;
  readonly valueSum: Scalar;
  readonly returnSum: Scalar;
  readonly returnSquaredSum: Scalar;
}

/**
 * Clipped value regression.
 *
 *   V_clip = V_old + clip(V − V_old, ±cliprangeValue)
 *   loss   = ½ Σ mask · max((V − return)², (V_clip − return)²) / denominator
 *
 * Never negative. Shards add up as in `policyLoss`; shapes and masking as there.
 * @param options.cliprangeValue above 0; default setting 0.2
 * @see DeepSpeedExamples 83757d9c `critic_loss_fn`, which divides by the micro-batch's own token count instead
 */
export function valueLoss(
  { values, oldValues, returns, mask, denominator }: ValueLossInput,
  { cliprangeValue }: { readonly cliprangeValue: number },
): { loss: Scalar; sums: ValueLossSums } {
  const move = tf.clipByValue(tf.sub(values, oldValues), -cliprangeValue, cliprangeValue);
  const error = tf.sub(values, returns);
  const clippedError = tf.sub(tf.add(oldValues, move), returns);
  const squared = tf.mul(error, error);
  const clippedSquared = tf.mul(clippedError, clippedError);
  const total = tf.sum(tf.mul(tf.maximum(squared, clippedSquared), mask));
  const isClipped = tf.cast(tf.greater(clippedSquared, squared), "float32");
  return {
    loss: tf.div(tf.mul(total, 0.5), denominator),
    sums: {
      valueClipFracSum: tf.sum(tf.mul(isClipped, mask)),
      valueErrorSum: tf.sum(tf.mul(squared, mask)),
      valueSum: tf.sum(tf.mul(values, mask)),
      returnSum: tf.sum(tf.mul(returns, mask)),
      returnSquaredSum: tf.sum(tf.mul(tf.mul(returns, returns), mask)),
    },
  };
}
