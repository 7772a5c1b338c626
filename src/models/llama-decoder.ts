import * as tf from "@tensorflow/tfjs";
import {
  biasActivation,
  embedding,
  inverseFrequencies,
  rmsNorm,
  rotaryEmbedding,
  rotaryTable,
} from "../engine/ops.js";
import type { Decoder } from "./decoders.js";
import { afterAttention } from "./forward-pass.js";
import type { ModelSpec } from "./model-spec.js";

/** The Llama line's layers, as src/models/llama.ts writes them down. */
export const llamaDecoder: Decoder = (spec, params, pass) => {
  const { batch, length } = pass;
  const { headSize } = spec;
  const norm = (x: tf.Tensor, name: string) => rmsNorm(x, params[`${name}.weight`], spec.normEpsilon);
  const project = (x: tf.Tensor, name: string) =>
    pass.linear(x, params[`${name}.weight`], params[`${name}.bias`] ?? null, { weightIsOutIn: true });
  const positions =
    pass.positions === null ? tf.range(0, length, 1, "int32") : tf.reshape(pass.positions, [batch, length]);
  const table = rotaryTable(positions, ropeFrequencies(spec));
  const headsOf = (x: tf.Tensor, heads: number, normName: string | null) => {
    const normed = normName === null ? x : norm(tf.reshape(x, [batch * length * heads, headSize]), normName);
    return tf.reshape(normed, [batch, length, heads, headSize]);
  };

  let x = embedding(params["model.embed_tokens.weight"], pass.ids);
  for (let layer = 0; layer < spec.layers; layer++) {
    const block = `model.layers.${layer}`;
    const attn = `${block}.self_attn`;
    x = pass.layer(x, (input) => {
      const a = norm(input, `${block}.input_layernorm`);
      const hasHeadNorm = spec.family === "qwen3";
      const q = headsOf(project(a, `${attn}.q_proj`), spec.heads, hasHeadNorm ? `${attn}.q_norm` : null);
      const k = headsOf(project(a, `${attn}.k_proj`), spec.kvHeads, hasHeadNorm ? `${attn}.k_norm` : null);
      const v = headsOf(project(a, `${attn}.v_proj`), spec.kvHeads, null);
      const attended = pass.attention(layer, rotaryEmbedding(q, table), rotaryEmbedding(k, table), v);
      const everywhere = tf.reshape(attended, [batch * length, spec.heads * headSize]);
      const [residual, joined] = afterAttention(pass, layer === spec.layers - 1, input, everywhere);
      const middle = tf.add(residual, project(joined, `${attn}.o_proj`));

      const n = norm(middle, `${block}.post_attention_layernorm`);
      const gate = pass.linear(n, params[`${block}.mlp.gate_proj.weight`], null, { weightIsOutIn: true });
      const gated = biasActivation(gate, params[`${block}.mlp.gate_proj.bias`] ?? null, spec.activation);
      return tf.add(
        middle,
        project(tf.mul(gated, project(n, `${block}.mlp.up_proj`)), `${block}.mlp.down_proj`),
      );
    });
  }
  return norm(x, "model.norm");
};

/**
 * Radians per position of each dimension pair, `[E/2]`. Llama 3 divides low frequencies (wavelength beyond
 * original/low) by `factor`, keeps high ones (below original/high) and blends in between.
 */
export function ropeFrequencies(spec: ModelSpec): Float32Array {
  const plain = inverseFrequencies(spec.headSize, spec.ropeTheta!);
  const scaling = spec.ropeScaling;
  if (scaling === null) return plain;
  return plain.map((frequency) => {
    const wavelength = (2 * Math.PI) / frequency;
    const turns = scaling.originalContextTokens / wavelength;
    if (turns > scaling.highFreqFactor) return frequency;
    if (turns < scaling.lowFreqFactor) return frequency / scaling.factor;
    const blend = (turns - scaling.lowFreqFactor) / (scaling.highFreqFactor - scaling.lowFreqFactor);
    return (1 - blend) * (frequency / scaling.factor) + blend * frequency;
  });
}
