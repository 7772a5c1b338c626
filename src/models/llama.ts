import { dataError } from "../shared/errors.js";
import type { DecoderFamily } from "./families.js";
import { exactDivision, type HfConfig } from "./hf-config.js";
import type { FamilyName, RopeScaling } from "./model-spec.js";
import { affinePlans, INITIALIZER_RANGE, ONES, weightInit, type TensorPlan } from "./tensor-plan.js";

const CLASS_PREFIX: Readonly<Partial<Record<FamilyName, string>>> = {
  llama: "Llama",
  mistral: "Mistral",
  qwen2: "Qwen2",
  qwen3: "Qwen3",
};

const DEFAULT_HEADS = 32;
const DEFAULT_ROPE_THETA = 10_000;

/** What transformers takes for a field that config.json leaves out; null: as if the field were `null`. */
interface Defaults {
  /** `num_key_value_heads`; null: as many as heads. */
  readonly kvHeads: number | null;
  /** `head_dim`; null: hidden_size / num_attention_heads. */
  readonly headSize: number | null;
  /** `sliding_window`, tokens, where the model uses one. */
  readonly window: number | null;
}

/** @see transformers/models/{llama,mistral,qwen2,qwen3}/configuration_*.py */
const DEFAULTS: Readonly<Partial<Record<FamilyName, Defaults>>> = {
  mistral: { kvHeads: 8, headSize: null, window: 4096 },
  qwen2: { kvHeads: 32, headSize: null, window: 4096 },
  qwen3: { kvHeads: 32, headSize: 128, window: 4096 },
};
const NO_DEFAULTS: Defaults = { kvHeads: null, headSize: null, window: null };

/**
 * The Llama line (Llama, Mistral, Qwen2, Qwen3): RMSNorm, rotary positions, grouped queries, gated MLP, no position
 * table. Qwen2 has biases on q, k, v; Qwen3 none, but an RMSNorm on every query and key head.
 *
 *   x = x + o_proj(attn(rope(q), rope(k), v))        x = x + down(silu(gate(n)) ⊙ up(n)),  n = rmsNorm(x)
 *
 * @see Touvron et al. 2023, arXiv:2302.13971; transformers/models/{llama,mistral,qwen2,qwen3}
 */
export const llama: DecoderFamily = {
  names: ["llama", "mistral", "qwen2", "qwen3"],
  prefix: "model.",
  ignoredTensors: /rotary_emb\.inv_freq$/,
  embeddingName: "model.embed_tokens.weight",

  parseConfig(config, family, head) {
    const hidden = config.size("hidden_size");
    const defaults = DEFAULTS[family] ?? NO_DEFAULTS;
    const heads = config.size("num_attention_heads", DEFAULT_HEADS);
    const kvHeads = config.optionalSize("num_key_value_heads", defaults.kvHeads) ?? heads;
    exactDivision(heads, kvHeads, "num_attention_heads / num_key_value_heads");
    const contextTokens = config.size("max_position_embeddings");
    const hasBias = family === "qwen2" || config.flag("attention_bias", false);
    const headSize =
      config.optionalSize("head_dim", defaults.headSize) ??
      exactDivision(hidden, heads, "hidden_size / num_attention_heads");
    if (headSize % 2 !== 0) {
      throw dataError(
        `config.json: field head_dim, else hidden_size / num_attention_heads, must be even, as rotary positions turn pairs of dimensions, got ${headSize}`,
      );
    }
    const rope = parseRope(config, contextTokens);
    return {
      family,
      head,
      vocabularySize: config.size("vocab_size"),
      hidden,
      embeddingSize: hidden,
      layers: config.layers("num_hidden_layers"),
      heads,
      kvHeads,
      headSize,
      intermediate: config.size("intermediate_size"),
      contextTokens: windowLimited(config, family, contextTokens, defaults.window),
      activation: config.choice("hidden_act", ["silu", "gelu", "relu"], "silu"),
      normEpsilon: config.positive("rms_norm_eps", 1e-6),
      postNorm: false,
      initializerRange: config.positive("initializer_range", INITIALIZER_RANGE),
      tieWordEmbeddings: config.flag("tie_word_embeddings", false),
      qkvBias: hasBias,
      outputBias: family !== "qwen2" && hasBias,
      mlpBias: config.flag("mlp_bias", false),
      ropeTheta: rope.theta,
      ropeScaling: rope.scaling,
      bosTokenId: config.tokenId("bos_token_id"),
      eosTokenIds: config.tokenIds("eos_token_id"),
      padTokenId: config.tokenId("pad_token_id"),
    };
  },

  toConfig: (spec) => ({
    hidden_size: spec.hidden,
    num_hidden_layers: spec.layers,
    num_attention_heads: spec.heads,
    num_key_value_heads: spec.kvHeads,
    head_dim: spec.headSize,
    intermediate_size: spec.intermediate,
    max_position_embeddings: spec.contextTokens,
    hidden_act: spec.activation,
    rms_norm_eps: spec.normEpsilon,
    rope_theta: spec.ropeTheta,
    rope_scaling: ropeScalingConfig(spec.ropeScaling),
    attention_dropout: 0,
    ...(spec.family === "llama" || spec.family === "qwen3" ? { attention_bias: spec.qkvBias } : {}),
    ...(spec.family === "llama" ? { mlp_bias: spec.mlpBias } : {}),
    ...(spec.family === "mistral" ? { sliding_window: null } : {}),
    ...(spec.family === "qwen2" || spec.family === "qwen3" ? { use_sliding_window: false } : {}),
  }),

  architecture: (spec) =>
    `${CLASS_PREFIX[spec.family]}${spec.head === "lm" ? "ForCausalLM" : "ForSequenceClassification"}`,

  tensorPlans(spec) {
    const { hidden: width, intermediate, headSize } = spec;
    const weight = weightInit(spec.initializerRange);
    const plans: Record<string, TensorPlan> = {
      "model.embed_tokens.weight": { shape: [spec.vocabularySize, width], init: weight },
      "model.norm.weight": { shape: [width], init: ONES },
    };
    const affine = (name: string, outputs: number, inputs: number, hasBias: boolean): void => {
      Object.assign(plans, affinePlans(name, [outputs, inputs], hasBias ? outputs : null, weight));
    };
    for (let layer = 0; layer < spec.layers; layer++) {
      const block = `model.layers.${layer}`;
      plans[`${block}.input_layernorm.weight`] = { shape: [width], init: ONES };
      plans[`${block}.post_attention_layernorm.weight`] = { shape: [width], init: ONES };
      affine(`${block}.self_attn.q_proj`, spec.heads * headSize, width, spec.qkvBias);
      affine(`${block}.self_attn.k_proj`, spec.kvHeads * headSize, width, spec.qkvBias);
      affine(`${block}.self_attn.v_proj`, spec.kvHeads * headSize, width, spec.qkvBias);
      affine(`${block}.self_attn.o_proj`, width, spec.heads * headSize, spec.outputBias);
      affine(`${block}.mlp.gate_proj`, intermediate, width, spec.mlpBias);
      affine(`${block}.mlp.up_proj`, intermediate, width, spec.mlpBias);
      affine(`${block}.mlp.down_proj`, width, intermediate, spec.mlpBias);
      if (spec.family === "qwen3") {
        plans[`${block}.self_attn.q_norm.weight`] = { shape: [headSize], init: ONES };
        plans[`${block}.self_attn.k_norm.weight`] = { shape: [headSize], init: ONES };
      }
    }
    return plans;
  },
};

/** Sliding-window attention equals full attention up to the window: longer sequences are not offered. */
function windowLimited(
  config: HfConfig,
  family: FamilyName,
  contextTokens: number,
  fallback: number | null,
): number {
  const usesWindow = family === "mistral" || (family !== "llama" && config.flag("use_sliding_window", false));
  const window = usesWindow ? config.optionalSize("sliding_window", fallback) : null;
  return window === null ? contextTokens : Math.min(window, contextTokens);
}

/**
 * transformers 4 writes `rope_theta` and `rope_scaling`, transformers 5 both inside `rope_parameters`. As transformers 5
 * reads them: `rope_scaling` comes before `rope_parameters`, a theta inside before one beside.
 */
function parseRope(
  config: HfConfig,
  contextTokens: number,
): { readonly theta: number; readonly scaling: RopeScaling | null } {
  const stated = ["rope_scaling", "rope_parameters"].map((field) => config.object(field));
  const settings = stated.find((found) => found !== null && !found.isEmpty) ?? null;
  config.requireValue("partial_rotary_factor", 1, 1);
  const topLevelTheta = config.positive("rope_theta", DEFAULT_ROPE_THETA);
  if (settings === null) return { theta: topLevelTheta, scaling: null };
  settings.requireValue("partial_rotary_factor", 1, 1);
  for (const kind of ["full_attention", "sliding_attention"]) {
    if (settings.states(kind))
      throw settings.fail(kind, "left out: layers with different rotations are not supported");
  }
  const theta = settings.positive("rope_theta", topLevelTheta);
  const type = settings.text("rope_type") ?? settings.text("type") ?? "default";
  if (type === "default") return { theta, scaling: null };
  if (type !== "llama3") throw settings.fail("rope_type", "default or llama3");
  return {
    theta,
    scaling: {
      type: "llama3",
      factor: settings.positive("factor"),
      lowFreqFactor: settings.positive("low_freq_factor"),
      highFreqFactor: settings.positive("high_freq_factor"),
      originalContextTokens: settings.size("original_max_position_embeddings", contextTokens),
    },
  };
}

function ropeScalingConfig(scaling: RopeScaling | null): Record<string, unknown> | null {
  if (scaling === null) return null;
  return {
    rope_type: scaling.type,
    factor: scaling.factor,
    low_freq_factor: scaling.lowFreqFactor,
    high_freq_factor: scaling.highFreqFactor,
    original_max_position_embeddings: scaling.originalContextTokens,
  };
}
