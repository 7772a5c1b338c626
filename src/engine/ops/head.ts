import * as tf from "@tensorflow/tfjs";
import type { Tensor } from "@tensorflow/tfjs";

export interface HeadLogprobs {
  /** `[N]` log π(label). Differentiable in x and w. */
  readonly logprobs: Tensor;
  /** `[N]` entropy of π in nats; a metric, its gradient is zero. Costs nothing when it is not used under onnx. */
  readonly entropy: Tensor;
}

/**
 * Language-model head and log-probability of given tokens in one op: the `[N, V]` logits never leave it.
 *
 *   π = softmax(x·wᵀ / temperature)      logprobs_n = log π_n(labels_n)      entropy_n = −Σ_v π_n(v) log π_n(v)
 *
 * @param x `[N, D]`  @param w `[V, D]`  @param labels int32 `[N]`; values outside [0, V) are clamped into it
 * @param temperature > 0
 */
export function headLogprobs(x: Tensor, w: Tensor, labels: Tensor, temperature: number): HeadLogprobs {
  const vocabulary = w.shape[0];
  const logPolicy = tf.logSoftmax(tf.mul(tf.matMul(x, w, false, true), 1 / temperature));
  const inRange = tf.clipByValue(labels, 0, vocabulary - 1).toInt() as tf.Tensor1D;
  return {
    logprobs: tf.sum(tf.mul(logPolicy, tf.oneHot(inRange, vocabulary).toFloat()), -1),
    entropy: withoutGradient(tf.neg(tf.sum(tf.mul(tf.exp(logPolicy), logPolicy), -1))),
  };
}

/** The same values, seen by autodiff as a constant. */
export function withoutGradient(x: Tensor): Tensor {
  return tf.customGrad((value: unknown) => ({
    value: tf.clone(value as Tensor),
    gradFunc: (dy: Tensor) => [tf.zerosLike(dy)],
  }))(x);
}
