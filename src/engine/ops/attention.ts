import * as tf from "@tensorflow/tfjs";
import type { Tensor } from "@tensorflow/tfjs";
import { shapeError } from "../../shared/errors.js";

/** Added to a score to hide it: exp() of it is exactly 0 in float32, and it stays finite in gradients. */
export const HIDDEN_SCORE = -1e9;

export interface AttentionOptions {
  /** Multiplies q·k. @default 1/√E */
  readonly scale?: number;
}

/**
 * Causal multi-head attention with grouped queries: query head h reads key/value head ⌊h·G/H⌋.
 *
 *   out_t = Σ_{s ≤ t} softmax_s(scale · q_t·k_s) v_s
 *
 * Sequences are left-aligned and right-padded: a pad position comes after every real one, so causality alone
 * keeps pads out of real positions and no padding mask exists. Outputs at pad positions are meaningless.
 *
 * @param q `[B, T, H, E]`  @param k `[B, T, G, E]`, G divides H  @param v `[B, T, G, E]`
 * @returns `[B, T, H, E]`
 */
export function causalAttention(q: Tensor, k: Tensor, v: Tensor, options: AttentionOptions = {}): Tensor {
  const [batch, length, heads, width] = q.shape;
  const [, , groups] = k.shape;
  if (heads % groups !== 0)
    throw shapeError(`causalAttention: ${groups} key heads do not divide ${heads} query heads`);
  const repeats = heads / groups;
  const scale = options.scale ?? 1 / Math.sqrt(width);
  const headsFirst = (t: Tensor, rows: number) =>
    tf.reshape(tf.transpose(t, [0, 2, 1, 3]), [batch, groups, rows, width]);
  // Query heads that share a key head are stacked along the row axis: no key or value is repeated.
  const queries = headsFirst(q, repeats * length);
  const keys = headsFirst(k, length);
  const values = headsFirst(v, length);
  const scores = tf.mul(tf.matMul(queries, keys, false, true), scale);
  const masked = tf.add(tf.reshape(scores, [batch, heads, length, length]), causalMask(length));
  const weights = tf.reshape(tf.softmax(masked), [batch, groups, repeats * length, length]);
  const out = tf.reshape(tf.matMul(weights, values), [batch, heads, length, width]);
  return tf.transpose(out, [0, 2, 1, 3]);
}

/**
 * `causalAttention` on GPT-2's fused projection (query, key and value side by side), H heads.
 *
 * @param qkv `[B·T, 3D]`
 * @returns `[B·T, D]`
 */
export function qkvAttention(qkv: Tensor, batch: number, length: number, heads: number): Tensor {
  const width = qkv.shape[1]! / 3;
  const [q, k, v] = tf.split(qkv, 3, -1).map((t) => tf.reshape(t, [batch, length, heads, width / heads]));
  return tf.reshape(causalAttention(q, k, v), [batch * length, width]);
}

/** `[T, T]`: 0 on and below the diagonal, HIDDEN_SCORE above it. */
function causalMask(length: number): Tensor {
  const mask = new Float32Array(length * length);
  for (let row = 0; row < length; row++) mask.fill(HIDDEN_SCORE, row * length + row + 1, (row + 1) * length);
  return tf.tensor2d(mask, [length, length]);
}
