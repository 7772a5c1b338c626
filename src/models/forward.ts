import * as tf from "@tensorflow/tfjs";
import type { Tensor } from "@tensorflow/tfjs";
import type { Tensors } from "../engine/engine.js";
import { embedding, headLogprobs, linear } from "../engine/ops.js";
import { streamOf } from "../shared/rng.js";
import { decoderOf } from "./decoders.js";
import { familyOf } from "./families.js";
import { fullPass, packedPass, type ForwardPass, type Recompute } from "./forward-pass.js";
import type { AdapterDropout } from "./lora-dropout.js";
import { withAdapters } from "./lora-pass.js";
import type { ModelSpec } from "./model-spec.js";

/**
 * Final hidden states of whole sequences.
 * @param ids int32 `[B, T]`, left-aligned, right-padded with any valid id; T ≤ contextTokens
 * @returns `[B·T, W]`, W the spec's `embeddingSize`; rows at pad positions are meaningless
 */
export function hiddenStates(spec: ModelSpec, params: Tensors, ids: Tensor): Tensor {
  return decoderOf(spec)(spec, params, withAdapters(fullPass(ids), spec, params));
}

/** The language-model head's weight, `[V, W]`: the token embedding itself when tied. */
export function headWeight(spec: ModelSpec, params: Tensors): Tensor {
  return params[spec.tieWordEmbeddings ? familyOf(spec).embeddingName : "lm_head.weight"];
}

/** Rows of tokens. */
export interface TokenRows {
  /** int32 `[R, L]` */
  readonly ids: Tensor;
  /** int32 `[R, L]` of rows that hold several sequences end to end, see `packedPass`. @default one sequence a row */
  readonly starts?: Tensor;
  /** What a gradient computes again. @default "none" */
  readonly recompute?: Recompute;
  /** Of adapters, in training; keys `[R·L, 3]`. @default none */
  readonly dropout?: AdapterDropout | null;
}

/**
 * Log-probabilities of listed tokens; the head runs on their positions only.
 *
 *   logprobs[n] = log softmax(logits[at[n]] / temperature)[labels[n]]
 *
 * @param at     int32 `[N]`, flat index in `[R·L]` of the position that predicts each token
 * @param labels int32 `[N]`, the tokens
 * @returns `[N]`, differentiable
 */
export function listedLogprobs(
  spec: ModelSpec,
  params: Tensors,
  rows: TokenRows,
  { at, labels, temperature }: { readonly at: Tensor; readonly labels: Tensor; readonly temperature: number },
): Tensor {
  const predicting = hiddenStatesOf(spec, params, rows, at);
  return headLogprobs(predicting, headWeight(spec, params), labels, temperature).logprobs;
}

/**
 * The scalar head at listed positions: V(s) of a critic, a reward model's score at the last token.
 * @param at int32 `[N]`, flat index in `[R·L]`
 * @returns `[N]`
 */
export function listedValues(spec: ModelSpec, params: Tensors, rows: TokenRows, at: Tensor): Tensor {
  const listed = hiddenStatesOf(spec, params, rows, at);
  const scores = linear(listed, params["score.weight"], null, { weightIsOutIn: true });
  return tf.reshape(scores, at.shape);
}

/** `[N, W]` */
function hiddenStatesOf(spec: ModelSpec, params: Tensors, rows: TokenRows, at: Tensor): Tensor {
  const { ids, starts, recompute, dropout = null } = rows;
  const pass = starts === undefined ? fullPass(ids) : packedPass(ids, starts, recompute);
  const adapted = withAdapters(pass, spec, params, dropout);
  // What is dropped is drawn for every position, so every position has to come to every linear map.
  if (dropout !== null) return embedding(decoderOf(spec)(spec, params, adapted), at);
  return hiddenStatesAt(spec, params, adapted, at);
}

/**
 * Final hidden states at listed positions. Where they are fewer than all, the last layer computes no more than it must
 * for them: all keys and values, but only their own attention output and MLP.
 * @param pass one that wants all positions
 * @param at   int32 `[N]`, flat indices in `[B·T]`
 * @returns `[N, W]`
 */
export function hiddenStatesAt(spec: ModelSpec, params: Tensors, pass: ForwardPass, at: Tensor): Tensor {
  const decoder = decoderOf(spec);
  if (at.shape[0] < pass.batch * pass.length) return decoder(spec, params, { ...pass, wanted: at });
  return embedding(decoder(spec, params, pass), at);
}

/** Short name of a spec for program keys; equal exactly for specs whose programs are interchangeable. */
export function specKey(spec: ModelSpec): string {
  const { low, high } = streamOf(JSON.stringify(Object.entries(spec).sort(([a], [b]) => (a < b ? -1 : 1))));
  const digest = high.toString(16).padStart(8, "0") + low.toString(16).padStart(8, "0");
  return `${spec.family}-${spec.layers}x${spec.hidden}-${spec.head}-${digest}`;
}
