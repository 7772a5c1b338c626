import * as tf from "@tensorflow/tfjs";
import type { Tensor } from "@tensorflow/tfjs";

/**
 * Layer normalisation over the last axis, population variance.
 *
 *   y = (x − mean(x)) / √(var(x) + ε) · γ + β
 *
 * @param x `[N, D]`  @param gamma `[D]`  @param beta `[D]`
 * @returns `[N, D]`
 * @see Ba et al. 2016, arXiv:1607.06450
 */
export function layerNorm(x: Tensor, gamma: Tensor, beta: Tensor, epsilon: number): Tensor {
  const centered = tf.sub(x, tf.mean(x, -1, true));
  const variance = tf.mean(tf.square(centered), -1, true);
  return tf.add(tf.mul(tf.mul(centered, tf.rsqrt(tf.add(variance, epsilon))), gamma), beta);
}

/**
 * Root-mean-square normalisation over the last axis.
 *
 *   y = x / √(mean(x²) + ε) · w
 *
 * @param x `[N, D]`  @param weight `[D]`
 * @returns `[N, D]`
 * @see Zhang & Sennrich 2019, arXiv:1910.07467
 */
export function rmsNorm(x: Tensor, weight: Tensor, epsilon: number): Tensor {
  const meanSquare = tf.mean(tf.square(x), -1, true);
  return tf.mul(tf.mul(x, tf.rsqrt(tf.add(meanSquare, epsilon))), weight);
}
