import { makeLayout, type Layout } from "../engine/layout.js";
import { configError, dataError } from "../shared/errors.js";
import { fillNormal, streamOf } from "../shared/rng.js";
import { familyOf, FAMILIES } from "./families.js";
import { HfConfig } from "./hf-config.js";
import type { LoraSpec } from "./lora.js";
import { weightInit, type Initializer, type TensorPlan } from "./tensor-plan.js";

export type FamilyName = "gpt2" | "opt" | "llama" | "mistral" | "qwen2" | "qwen3";

/** "lm": logits over the vocabulary. "scalar": one number per position (reward model, critic). */
export type Head = "lm" | "scalar";

export type Activation = "gelu_new" | "gelu" | "relu" | "silu";

/** RoPE frequencies: plain, or Llama 3's stretched low frequencies. */
export interface RopeScaling {
  readonly type: "llama3";
  readonly factor: number;
  readonly lowFreqFactor: number;
  readonly highFreqFactor: number;
  readonly originalContextTokens: number;
}

/** Everything that decides a decoder's shapes and arithmetic. Plain JSON: it travels to threads and other hosts. */
export interface ModelSpec {
  readonly family: FamilyName;
  readonly head: Head;
  readonly vocabularySize: number;
  /** D, width of the residual stream. */
  readonly hidden: number;
  /** Width of token embeddings and of what the heads read; unlike `hidden` (OPT-350m) it is projected to and from it. */
  readonly embeddingSize: number;
  readonly layers: number;
  /** H, query heads. */
  readonly heads: number;
  /** Key and value heads, a divisor of `heads`; fewer than `heads` is grouped-query attention. */
  readonly kvHeads: number;
  /** Width of one head; `heads · headSize` may differ from `hidden` (Qwen3). */
  readonly headSize: number;
  /** Width inside the MLP. */
  readonly intermediate: number;
  /** Longest sequence, tokens. */
  readonly contextTokens: number;
  readonly activation: Activation;
  readonly normEpsilon: number;
  /** Norms follow the residual sums instead of leading into attention and MLP, and none comes last (OPT-350m). */
  readonly postNorm: boolean;
  /** Deviation of fresh weights. */
  readonly initializerRange: number;
  /** The LM head is the token embedding. */
  readonly tieWordEmbeddings: boolean;
  /** Biases of query, key and value projections. */
  readonly qkvBias: boolean;
  /** Bias of the attention output projection. */
  readonly outputBias: boolean;
  readonly mlpBias: boolean;
  /** Base of the rotary frequencies; null: learned positions. */
  readonly ropeTheta: number | null;
  readonly ropeScaling: RopeScaling | null;
  readonly bosTokenId: number | null;
  /** Any of these ends an answer; empty: none does. */
  readonly eosTokenIds: readonly number[];
  readonly padTokenId: number | null;
  /** Adapters of a model under training; left out without, and in models on disk, which are merged. */
  readonly lora?: LoraSpec;
}

/**
 * Reads a Hugging Face `config.json`.
 * @throws {TroupeError} DATA naming the field, what it must be and what came; for an unknown `model_type`, the known ones
 */
export function parseModelConfig(hfConfig: unknown, head: Head): ModelSpec {
  const config = new HfConfig(hfConfig);
  const type = config.text("model_type");
  const family = FAMILIES.find((candidate) => candidate.names.some((name) => name === type));
  if (family === undefined) {
    const known = FAMILIES.flatMap((candidate) => candidate.names).join(", ");
    throw dataError(
      `config.json: model_type ${JSON.stringify(type)} is not supported; expected one of ${known}`,
    );
  }
  if (config.object("quantization_config") !== null) {
    throw dataError(
      "config.json: field quantization_config must be left out: quantized weights are not supported; expected float32, float16 or bfloat16 ones, as of the model that was quantized",
    );
  }
  const spec = family.parseConfig(config, type as FamilyName, head);
  const ids = {
    bos_token_id: spec.bosTokenId,
    pad_token_id: spec.padTokenId,
    eos_token_id: spec.eosTokenIds,
  };
  for (const [field, value] of Object.entries(ids)) {
    for (const id of [value].flat()) {
      if (id !== null && id >= spec.vocabularySize) {
        throw dataError(
          `config.json: field ${field} must be below vocab_size ${spec.vocabularySize}, got ${id}`,
        );
      }
    }
  }
  return spec;
}

/** The `config.json` of a spec: transformers loads the directory with it unchanged. */
export function toHfConfig(spec: ModelSpec): Record<string, unknown> {
  const family = familyOf(spec);
  return {
    model_type: spec.family,
    architectures: [family.architecture(spec)],
    torch_dtype: "float32",
    vocab_size: spec.vocabularySize,
    tie_word_embeddings: spec.tieWordEmbeddings,
    bos_token_id: spec.bosTokenId,
    eos_token_id: spec.eosTokenIds.length > 1 ? [...spec.eosTokenIds] : (spec.eosTokenIds[0] ?? null),
    pad_token_id: spec.padTokenId,
    initializer_range: spec.initializerRange,
    use_cache: true,
    ...(spec.head === "scalar" ? { id2label: { "0": "LABEL_0" }, label2id: { LABEL_0: 0 } } : {}),
    ...family.toConfig(spec),
  };
}

/** Every parameter by Hugging Face name, with its shape and how a fresh one starts. */
export function tensorPlans(spec: ModelSpec): Readonly<Record<string, TensorPlan>> {
  const plans: Record<string, TensorPlan> = familyOf(spec).tensorPlans(spec);
  if (spec.head === "scalar") {
    // 1/√(D+1): Huang et al. 2023, "The N Implementation Details of RLHF with PPO", reward head.
    plans["score.weight"] = {
      shape: [1, spec.embeddingSize],
      init: { type: "normal", std: 1 / Math.sqrt(spec.embeddingSize + 1) },
    };
  } else if (!spec.tieWordEmbeddings) {
    plans["lm_head.weight"] = {
      shape: [spec.vocabularySize, spec.embeddingSize],
      init: weightInit(spec.initializerRange),
    };
  }
  return plans;
}

/** The arena layout of a spec, without adapters: equals the data section of its model.safetensors. */
export function layoutOf(spec: ModelSpec): Layout {
  return makeLayout(
    Object.fromEntries(Object.entries(tensorPlans(spec)).map(([name, plan]) => [name, plan.shape])),
  );
}

/** Fills one fresh tensor. Depends on (seed, tensor name, position) only: adding a tensor changes no other. */
export function initTensor(name: string, init: Initializer, target: Float32Array, seed: number): void {
  if (init.type === "normal") fillNormal(target, init.std, seed, streamOf(`init/${name}`));
  else target.fill(init.type === "ones" ? 1 : 0);
}

/**
 * Fresh parameters, as transformers' GPT-2 makes them: N(0, r) with r the spec's initializer range (0.02 unless its
 * config says otherwise), residual output projections N(0, r/√(2L)), norms one, biases zero, score head N(0, 1/√(D+1)).
 * @param into where they go, `layoutOf(spec).size` elements; memory of their own by default
 * @returns flat values in `layoutOf(spec)` order
 */
export function initParams(spec: ModelSpec, seed: number, into?: Float32Array): Float32Array {
  const layout = layoutOf(spec);
  const plans = tensorPlans(spec);
  const values = into ?? new Float32Array(layout.size);
  for (const { name, offset, size } of layout.entries) {
    initTensor(name, plans[name].init, values.subarray(offset, offset + size), seed);
  }
  return values;
}

/** Longest sequence the model can read, tokens. */
export const contextTokens = (spec: ModelSpec): number => spec.contextTokens;

/** The spec of a fresh GPT-2. */
export function freshGpt2Spec(options: {
  readonly head: Head;
  readonly layers: number;
  readonly hidden: number;
  readonly heads: number;
  readonly contextTokens: number;
  readonly vocabularySize: number;
  readonly bosTokenId?: number | null;
  readonly eosTokenId: number | null;
  readonly padTokenId: number | null;
}): ModelSpec {
  if (options.hidden % options.heads !== 0) {
    throw configError(`model.fresh: hidden ${options.hidden} must be divisible by heads ${options.heads}`);
  }
  return parseModelConfig(
    {
      model_type: "gpt2",
      vocab_size: options.vocabularySize,
      n_positions: options.contextTokens,
      n_embd: options.hidden,
      n_layer: options.layers,
      n_head: options.heads,
      bos_token_id: options.bosTokenId ?? options.eosTokenId,
      eos_token_id: options.eosTokenId,
      pad_token_id: options.padTokenId,
    },
    options.head,
  );
}

/** The same backbone with another head (a reward model or critic from a language model, or back). */
export function withHead(spec: ModelSpec, head: Head): ModelSpec {
  return { ...spec, head };
}
