import * as tf from "@tensorflow/tfjs";
import type { Tensor } from "@tensorflow/tfjs";
import type { Tensors } from "../engine/engine.js";
import { embedding, headLogprobs, linear } from "../engine/ops.js";
import { streamOf } from "../shared/rng.js";
import { familyOf } from "./families.js";
import { fullPass, packedPass, type Recompute } from "./forward-pass.js";
import type { AdapterDropout } from "./lora-dropout.js";
import { withAdapters } from "./lora.js";
import type { ModelSpec } from "./model-spec.js";

/**
 * Final hidden states of whole sequences.
 * @param ids int32 `[B, T]`, left-aligned, right-padded with any valid id; T ≤ contextTokens
 * @returns `[B·T, D]`; rows at pad positions are meaningless
 */
export function hiddenStates(spec: ModelSpec, params: Tensors, ids: Tensor): Tensor {
  return familyOf(spec).hiddenStates(spec, params, withAdapters(fullPass(ids), spec, params));
}

/** The language-model head's weight, `[V, D]`: the token embedding itself when tied. */
export function headWeight(spec: ModelSpec, params: Tensors): Tensor {
  return params[spec.tieWordEmbeddings ? familyOf(spec).embeddingName : "lm_head.weight"];
}

/**
 * Log-probabilities of every next token.
 *
 *   logprobs[b, t] = log softmax(logits[b, t] / temperature)[ids[b, t + 1]]
 *
 * For P prompt and R response tokens, response token i (sequence position P + i) is at index P + i − 1.
 *
 * @param ids int32 `[B, T]`, left-aligned, right-padded
 * @returns logprobs `[B, T−1]`, differentiable; entropy of the same shape in nats, a metric without gradient. Both are
 *   meaningless where token t + 1 is a pad: mask them.
 */
export function responseLogprobs(
  spec: ModelSpec,
  params: Tensors,
  ids: Tensor,
  { temperature }: { readonly temperature: number },
): { readonly logprobs: Tensor; readonly entropy: Tensor } {
  const [batch, length] = ids.shape as [number, number];
  const count = length - 1;
  const hidden = tf.reshape(hiddenStates(spec, params, ids), [batch, length, spec.hidden]);
  const predicting = tf.reshape(tf.slice(hidden, [0, 0, 0], [batch, count, spec.hidden]), [
    batch * count,
    spec.hidden,
  ]);
  const labels = tf.reshape(tf.slice(ids, [0, 1], [batch, count]), [batch * count]);
  const { logprobs, entropy } = headLogprobs(predicting, headWeight(spec, params), labels, temperature);
  return {
    logprobs: tf.reshape(logprobs, [batch, count]),
    entropy: tf.reshape(entropy, [batch, count]),
  };
}

/** Rows that hold several sequences end to end, see `packedPass`. */
export interface PackedSequences {
  /** int32 `[R, L]` */
  readonly ids: Tensor;
  /** int32 `[R, L]` */
  readonly starts: Tensor;
  /** What a gradient computes again. @default "none" */
  readonly recompute?: Recompute;
  /** Of adapters, in training; keys `[R·L, 3]`. @default none */
  readonly dropout?: AdapterDropout | null;
}

/**
 * Log-probabilities of listed tokens; the head runs on their positions only.
 *
 * @param at     int32 `[N]`, flat index in `[R·L]` of the position that predicts each token
 * @param labels int32 `[N]`, the tokens
 * @returns `[N]`, differentiable
 */
export function packedLogprobs(
  spec: ModelSpec,
  params: Tensors,
  sequences: PackedSequences,
  { at, labels, temperature }: { readonly at: Tensor; readonly labels: Tensor; readonly temperature: number },
): Tensor {
  const predicting = embedding(packedHiddenStates(spec, params, sequences), at);
  return headLogprobs(predicting, headWeight(spec, params), labels, temperature).logprobs;
}

/**
 * The scalar head at listed positions.
 * @param at int32 `[N]`, flat index in `[R·L]`
 * @returns `[N]`
 */
export function packedValues(
  spec: ModelSpec,
  params: Tensors,
  sequences: PackedSequences,
  at: Tensor,
): Tensor {
  const listed = embedding(packedHiddenStates(spec, params, sequences), at);
  const scores = linear(listed, params["score.weight"], null, { weightIsOutIn: true });
  return tf.reshape(scores, at.shape);
}

/** `[R·L, D]` */
function packedHiddenStates(spec: ModelSpec, params: Tensors, sequences: PackedSequences): Tensor {
  const { ids, starts, recompute, dropout = null } = sequences;
  return familyOf(spec).hiddenStates(
    spec,
    params,
    withAdapters(packedPass(ids, starts, recompute), spec, params, dropout),
  );
}

/**
 * The scalar head at every position: V(s) of a critic, or a reward model's score (read it at the last real token).
 * @param ids int32 `[B, T]`, left-aligned, right-padded
 * @returns `[B, T]`; meaningless at pads
 */
export function tokenValues(spec: ModelSpec, params: Tensors, ids: Tensor): Tensor {
  const scores = linear(hiddenStates(spec, params, ids), params["score.weight"], null, {
    weightIsOutIn: true,
  });
  return tf.reshape(scores, ids.shape);
}

/** Short name of a spec for program keys; equal exactly for specs whose programs are interchangeable. */
export function specKey(spec: ModelSpec): string {
  const { low, high } = streamOf(JSON.stringify(Object.entries(spec).sort(([a], [b]) => (a < b ? -1 : 1))));
  const digest = high.toString(16).padStart(8, "0") + low.toString(16).padStart(8, "0");
  return `${spec.family}-${spec.layers}x${spec.hidden}-${spec.head}-${digest}`;
}
