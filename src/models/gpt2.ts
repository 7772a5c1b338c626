import type { DecoderFamily } from "./families.js";
import { exactDivision } from "./hf-config.js";
import {
  affinePlans,
  normPlans,
  INITIALIZER_RANGE,
  residualInit,
  weightInit,
  type TensorPlan,
} from "./tensor-plan.js";

/**
 * GPT-2: learned positions, pre-LayerNorm blocks, fused QKV, weights stored `[in, out]` (Conv1D).
 *
 *   x = wte[id] + wpe[t]
 *   x = x + attn(ln_1(x))·c_proj          x = x + gelu_new(ln_2(x)·c_fc)·c_proj
 *   hidden = ln_f(x)
 *
 * @see Radford et al. 2019; transformers/models/gpt2/modeling_gpt2.py
 */
export const gpt2: DecoderFamily = {
  names: ["gpt2"],
  prefix: "transformer.",
  ignoredTensors: /(^|\.)h\.\d+\.attn\.(bias|masked_bias)$/,
  embeddingName: "transformer.wte.weight",

  parseConfig(config, family, head) {
    const hidden = config.size("n_embd", 768);
    const heads = config.size("n_head", 12);
    config.requireValue("scale_attn_weights", true, true);
    config.requireValue("scale_attn_by_inverse_layer_idx", false, false);
    config.requireValue("add_cross_attention", false, false);
    return {
      family,
      head,
      vocabularySize: config.size("vocab_size", 50257),
      hidden,
      embeddingSize: hidden,
      layers: config.layers("n_layer", 12),
      heads,
      kvHeads: heads,
      headSize: exactDivision(hidden, heads, "n_embd / n_head"),
      intermediate: config.size("n_inner", 4 * hidden),
      contextTokens: config.size("n_positions", 1024),
      activation: parseActivation(config.choice("activation_function", ACTIVATION_NAMES, "gelu_new")),
      normEpsilon: config.positive("layer_norm_epsilon", 1e-5),
      postNorm: false,
      initializerRange: config.positive("initializer_range", INITIALIZER_RANGE),
      tieWordEmbeddings: config.flag("tie_word_embeddings", true),
      qkvBias: true,
      outputBias: true,
      mlpBias: true,
      ropeTheta: null,
      ropeScaling: null,
      bosTokenId: config.tokenId("bos_token_id"),
      eosTokenIds: config.tokenIds("eos_token_id"),
      padTokenId: config.tokenId("pad_token_id"),
    };
  },

  toConfig: (spec) => ({
    n_embd: spec.hidden,
    n_layer: spec.layers,
    n_head: spec.heads,
    n_inner: spec.intermediate === 4 * spec.hidden ? null : spec.intermediate,
    n_positions: spec.contextTokens,
    activation_function: spec.activation,
    layer_norm_epsilon: spec.normEpsilon,
    // Troupe trains and samples without dropout; transformers must not add it back on a fine-tune.
    resid_pdrop: 0,
    embd_pdrop: 0,
    attn_pdrop: 0,
  }),

  architecture: (spec) => (spec.head === "lm" ? "GPT2LMHeadModel" : "GPT2ForSequenceClassification"),

  tensorPlans(spec) {
    const { hidden: width, intermediate } = spec;
    const weight = weightInit(spec.initializerRange);
    const residual = residualInit(spec.initializerRange, spec.layers);
    const plans: Record<string, TensorPlan> = {
      "transformer.wte.weight": { shape: [spec.vocabularySize, width], init: weight },
      "transformer.wpe.weight": { shape: [spec.contextTokens, width], init: weight },
      ...normPlans("transformer.ln_f", width),
    };
    for (let layer = 0; layer < spec.layers; layer++) {
      const block = `transformer.h.${layer}`;
      Object.assign(
        plans,
        normPlans(`${block}.ln_1`, width),
        normPlans(`${block}.ln_2`, width),
        affinePlans(`${block}.attn.c_attn`, [width, 3 * width], 3 * width, weight),
        affinePlans(`${block}.attn.c_proj`, [width, width], width, residual),
        affinePlans(`${block}.mlp.c_fc`, [width, intermediate], intermediate, weight),
        affinePlans(`${block}.mlp.c_proj`, [intermediate, width], width, residual),
      );
    }
    return plans;
  },
};

/** transformers' names for the activations we compute. */
const ACTIVATION_NAMES = [
  "gelu_new",
  "gelu_pytorch_tanh",
  "gelu_fast",
  "gelu",
  "relu",
  "silu",
  "swish",
] as const;

function parseActivation(name: (typeof ACTIVATION_NAMES)[number]) {
  if (name === "gelu_pytorch_tanh" || name === "gelu_fast") return "gelu_new";
  return name === "swish" ? "silu" : name;
}
