import * as tf from "@tensorflow/tfjs";
import { biasActivation, embedding, layerNorm } from "../engine/ops.js";
import type { Decoder } from "./decoders.js";
import { addPositions, afterAttention } from "./forward-pass.js";

/** GPT-2's layers, as src/models/gpt2.ts writes them down. */
export const gpt2Decoder: Decoder = (spec, params, pass) => {
  const norm = (x: tf.Tensor, name: string) =>
    layerNorm(x, params[`${name}.weight`], params[`${name}.bias`], spec.normEpsilon);
  const project = (x: tf.Tensor, name: string) =>
    pass.linear(x, params[`${name}.weight`], params[`${name}.bias`]);

  let x = embedding(params["transformer.wte.weight"], pass.ids);
  x = addPositions(x, params["transformer.wpe.weight"], pass);
  for (let layer = 0; layer < spec.layers; layer++) {
    const block = `transformer.h.${layer}`;
    x = pass.layer(x, (input) => {
      const qkv = project(norm(input, `${block}.ln_1`), `${block}.attn.c_attn`);
      const everywhere = pass.fusedAttention(layer, qkv, spec.heads);
      const [residual, attended] = afterAttention(pass, layer === spec.layers - 1, input, everywhere);
      const middle = tf.add(residual, project(attended, `${block}.attn.c_proj`));
      const inner = pass.linear(norm(middle, `${block}.ln_2`), params[`${block}.mlp.c_fc.weight`], null);
      const activated = biasActivation(inner, params[`${block}.mlp.c_fc.bias`], spec.activation);
      return tf.add(middle, project(activated, `${block}.mlp.c_proj`));
    });
  }
  return norm(x, "transformer.ln_f");
};
