/** Log-probabilities and values at every position of plain rows: what listed ones are compared with. */
import * as tf from "@tensorflow/tfjs";
import type { Tensor } from "@tensorflow/tfjs";
import type { Tensors } from "../../../src/engine/engine.js";
import { headLogprobs, linear } from "../../../src/engine/ops.js";
import { headWeight, hiddenStates } from "../../../src/models/forward.js";
import type { ModelSpec } from "../../../src/models/model-spec.js";

/**
 * logprobs[b, t] = log softmax(logits[b, t] / temperature)[ids[b, t + 1]]
 * @param ids int32 `[B, T]`
 * @returns `[B, T−1]`
 */
export function everyLogprob(spec: ModelSpec, params: Tensors, ids: Tensor, temperature: number): Tensor {
  const [batch, length] = ids.shape as [number, number];
  const count = length - 1;
  const hidden = tf.reshape(hiddenStates(spec, params, ids), [batch, length, spec.hidden]);
  const predicting = tf.slice(hidden, [0, 0, 0], [batch, count, spec.hidden]);
  const flat = tf.reshape(predicting, [batch * count, spec.hidden]);
  const labels = tf.reshape(tf.slice(ids, [0, 1], [batch, count]), [batch * count]);
  const { logprobs } = headLogprobs(flat, headWeight(spec, params), labels, temperature);
  return tf.reshape(logprobs, [batch, count]);
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
