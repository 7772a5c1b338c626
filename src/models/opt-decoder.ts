import * as tf from "@tensorflow/tfjs";
import { biasActivation, embedding, layerNorm } from "../engine/ops.js";
import type { Decoder } from "./decoders.js";
import { addPositions, afterAttention } from "./forward-pass.js";
import { POSITION_OFFSET } from "./opt.js";

/** OPT's layers, as src/models/opt.ts writes them down. */
export const optDecoder: Decoder = (spec, params, pass) => {
  const { batch, length } = pass;
  const headsOf = (x: tf.Tensor) => tf.reshape(x, [batch, length, spec.heads, spec.headSize]);
  const norm = (x: tf.Tensor, name: string) =>
    layerNorm(x, params[`${name}.weight`], params[`${name}.bias`], spec.normEpsilon);
  const before = (x: tf.Tensor, name: string) => (spec.postNorm ? x : norm(x, name));
  const after = (x: tf.Tensor, name: string) => (spec.postNorm ? norm(x, name) : x);
  const project = (x: tf.Tensor, name: string) =>
    pass.linear(x, params[`${name}.weight`], params[`${name}.bias`] ?? null, { weightIsOutIn: true });
  const isProjected = spec.embeddingSize !== spec.hidden;

  let x = embedding(params["model.decoder.embed_tokens.weight"], pass.ids);
  if (isProjected) x = project(x, "model.decoder.project_in");
  x = addPositions(x, params["model.decoder.embed_positions.weight"], pass, POSITION_OFFSET);
  for (let layer = 0; layer < spec.layers; layer++) {
    const block = `model.decoder.layers.${layer}`;
    x = pass.layer(x, (input) => {
      const a = before(input, `${block}.self_attn_layer_norm`);
      const [q, k, v] = ["q_proj", "k_proj", "v_proj"].map((part) =>
        headsOf(project(a, `${block}.self_attn.${part}`)),
      );
      const everywhere = tf.reshape(pass.attention(layer, q, k, v), [batch * length, spec.hidden]);
      const [residual, attended] = afterAttention(pass, layer === spec.layers - 1, input, everywhere);
      const summed = tf.add(residual, project(attended, `${block}.self_attn.out_proj`));
      const middle = after(summed, `${block}.self_attn_layer_norm`);
      const normed = before(middle, `${block}.final_layer_norm`);
      const inner = pass.linear(normed, params[`${block}.fc1.weight`], null, { weightIsOutIn: true });
      const activated = biasActivation(inner, params[`${block}.fc1.bias`], spec.activation);
      return after(tf.add(middle, project(activated, `${block}.fc2`)), `${block}.final_layer_norm`);
    });
  }
  x = before(x, "model.decoder.final_layer_norm");
  return isProjected ? project(x, "model.decoder.project_out") : x;
};
