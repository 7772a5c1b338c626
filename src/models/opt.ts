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

/** OPT's position table starts with two rows that no token uses (fairseq's padding offset). */
export const POSITION_OFFSET = 2;

/**
 * OPT: GPT-2's shape with ReLU, separate q, k, v projections stored `[out, in]` and positions offset by 2.
 *
 *   x = project_in(embed_tokens[id]) + embed_positions[t + 2]
 *   x = x + attn(norm(x))     x = x + mlp(norm(x))     hidden = project_out(norm(x))
 *   x = norm(x + attn(x))     x = norm(x + mlp(x))     hidden = project_out(x)           with norms after (OPT-350m)
 *
 * The projections are only there where token embeddings have another width than the layers (OPT-350m: 512 and 1024).
 *
 * @see Zhang et al. 2022, arXiv:2205.01068; transformers/models/opt/modeling_opt.py
 */
export const opt: DecoderFamily = {
  names: ["opt"],
  prefix: "model.",
  ignoredTensors: /$^/,
  embeddingName: "model.decoder.embed_tokens.weight",

  parseConfig(config, family, head) {
    const hidden = config.size("hidden_size", 768);
    const heads = config.size("num_attention_heads", 12);
    const postNorm = !config.flag("do_layer_norm_before", true);
    if (!postNorm) config.requireValue("_remove_final_layer_norm", false, false);
    config.requireValue("enable_bias", true, true);
    config.requireValue("layer_norm_elementwise_affine", true, true);
    return {
      family,
      head,
      vocabularySize: config.size("vocab_size", 50272),
      hidden,
      embeddingSize: config.size("word_embed_proj_dim", hidden),
      layers: config.layers("num_hidden_layers", 12),
      heads,
      kvHeads: heads,
      headSize: exactDivision(hidden, heads, "hidden_size / num_attention_heads"),
      intermediate: config.size("ffn_dim", 3072),
      contextTokens: config.size("max_position_embeddings", 2048),
      activation: config.choice("activation_function", ["relu", "gelu", "gelu_new"], "relu"),
      normEpsilon: 1e-5, // torch.nn.LayerNorm's default; OPT has no field for it
      postNorm,
      initializerRange: config.positive("init_std", INITIALIZER_RANGE),
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
    hidden_size: spec.hidden,
    num_hidden_layers: spec.layers,
    num_attention_heads: spec.heads,
    ffn_dim: spec.intermediate,
    max_position_embeddings: spec.contextTokens,
    activation_function: spec.activation,
    word_embed_proj_dim: spec.embeddingSize,
    init_std: spec.initializerRange,
    do_layer_norm_before: !spec.postNorm,
    dropout: 0,
    attention_dropout: 0,
  }),

  architecture: (spec) => (spec.head === "lm" ? "OPTForCausalLM" : "OPTForSequenceClassification"),

  tensorPlans(spec) {
    const { hidden: width, embeddingSize, intermediate } = spec;
    const weight = weightInit(spec.initializerRange);
    const residual = residualInit(spec.initializerRange, spec.layers);
    const plans: Record<string, TensorPlan> = {
      "model.decoder.embed_tokens.weight": {
        shape: [spec.vocabularySize, embeddingSize],
        init: weight,
      },
      "model.decoder.embed_positions.weight": {
        shape: [spec.contextTokens + POSITION_OFFSET, width],
        init: weight,
      },
    };
    if (embeddingSize !== width) {
      plans["model.decoder.project_in.weight"] = { shape: [width, embeddingSize], init: weight };
      plans["model.decoder.project_out.weight"] = { shape: [embeddingSize, width], init: weight };
    }
    if (!spec.postNorm) Object.assign(plans, normPlans("model.decoder.final_layer_norm", width));
    for (let layer = 0; layer < spec.layers; layer++) {
      const block = `model.decoder.layers.${layer}`;
      Object.assign(
        plans,
        normPlans(`${block}.self_attn_layer_norm`, width),
        normPlans(`${block}.final_layer_norm`, width),
      );
      for (const part of ["q_proj", "k_proj", "v_proj"]) {
        Object.assign(plans, affinePlans(`${block}.self_attn.${part}`, [width, width], width, weight));
      }
      Object.assign(
        plans,
        affinePlans(`${block}.self_attn.out_proj`, [width, width], width, residual),
        affinePlans(`${block}.fc1`, [intermediate, width], intermediate, weight),
        affinePlans(`${block}.fc2`, [width, intermediate], width, residual),
      );
    }
    return plans;
  },
};
