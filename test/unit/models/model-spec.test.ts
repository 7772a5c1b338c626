import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { viewOf } from "../../../src/engine/layout.js";
import { specKey } from "../../../src/models/forward.js";
import { ropeFrequencies } from "../../../src/models/llama-decoder.js";
import {
  freshGpt2Spec,
  initParams,
  layoutOf,
  parseModelConfig,
  tensorPlans,
  toHfConfig,
  withHead,
} from "../../../src/models/model-spec.js";
import { TroupeError } from "../../../src/shared/errors.js";
import { FIXTURES, fixtureHead, fixtureJson } from "./model-fixtures.js";

const GPT2 = { model_type: "gpt2", n_embd: 16, n_head: 4, n_layer: 2, n_positions: 24, vocab_size: 48 };
const LLAMA = {
  model_type: "llama",
  hidden_size: 16,
  num_attention_heads: 4,
  num_hidden_layers: 2,
  intermediate_size: 24,
  max_position_embeddings: 64,
  vocab_size: 48,
};

const LLAMA3_ROPE = {
  rope_type: "llama3",
  factor: 8,
  low_freq_factor: 1,
  high_freq_factor: 4,
  original_max_position_embeddings: 16,
};

describe("parseModelConfig", () => {
  it("takes transformers' defaults for what a config leaves out", () => {
    const spec = parseModelConfig({ model_type: "gpt2" }, "lm");
    expect(spec).toMatchObject({
      vocabularySize: 50257,
      hidden: 768,
      layers: 12,
      heads: 12,
      headSize: 64,
      intermediate: 3072,
      contextTokens: 1024,
      activation: "gelu_new",
      normEpsilon: 1e-5,
      tieWordEmbeddings: true,
    });
    expect(layoutOf(spec).size).toBe(124_439_808); // GPT-2 small
    expect(parseModelConfig({ model_type: "gpt2", n_inner: null }, "lm").intermediate).toBe(3072);
  });

  it.each<[string, object, object]>([
    [
      "mistral's window of 4096 and 8 key heads",
      { model_type: "mistral" },
      { contextTokens: 4096, kvHeads: 8, headSize: 4 },
    ],
    [
      "no window and all heads where mistral says null",
      { model_type: "mistral", sliding_window: null, num_key_value_heads: null },
      { contextTokens: 8192, kvHeads: 32 },
    ],
    ["a window of its own", { model_type: "mistral", sliding_window: 512 }, { contextTokens: 512 }],
    [
      "qwen3's head size of 128",
      { model_type: "qwen3" },
      { headSize: 128, kvHeads: 32, contextTokens: 8192 },
    ],
    ["hidden / heads where qwen3 says null", { model_type: "qwen3", head_dim: null }, { headSize: 4 }],
    [
      "qwen2's window, where it is used",
      { model_type: "qwen2", use_sliding_window: true },
      { contextTokens: 4096 },
    ],
    ["llama's heads", { model_type: "llama" }, { contextTokens: 8192, kvHeads: 32, headSize: 4 }],
  ])("takes %s", (_, fields, expected) => {
    const sizes = { hidden_size: 128, num_attention_heads: 32, max_position_embeddings: 8192 };
    expect(parseModelConfig({ ...LLAMA, ...sizes, ...fields }, "lm")).toMatchObject(expected);
  });

  it("counts the parameters of published models", () => {
    const qwen3 = {
      model_type: "qwen3",
      vocab_size: 151936,
      hidden_size: 1024,
      num_hidden_layers: 28,
      num_attention_heads: 16,
      num_key_value_heads: 8,
      head_dim: 128,
      intermediate_size: 3072,
      max_position_embeddings: 40960,
      tie_word_embeddings: true,
    };
    expect(layoutOf(parseModelConfig(qwen3, "lm")).size).toBe(596_049_920); // Qwen3-0.6B
    expect(layoutOf(parseModelConfig({ model_type: "opt" }, "lm")).size).toBe(125_239_296); // OPT-125m
    const opt350m = {
      model_type: "opt",
      hidden_size: 1024,
      word_embed_proj_dim: 512,
      num_hidden_layers: 24,
      num_attention_heads: 16,
      ffn_dim: 4096,
      do_layer_norm_before: false,
    };
    expect(layoutOf(parseModelConfig(opt350m, "lm")).size).toBe(331_196_416); // OPT-350m
  });

  it.each<[string, object, RegExp]>([
    [
      "an unknown architecture",
      { model_type: "bert" },
      /model_type "bert" is not supported; expected one of gpt2, opt, llama, mistral, qwen2, qwen3/,
    ],
    ["no architecture", {}, /model_type null is not supported/],
    [
      "a fractional size",
      { ...GPT2, n_layer: 1.5 },
      /field n_layer must be a whole number from 1 to \d+, got 1.5/,
    ],
    [
      "a size as text",
      { ...GPT2, n_embd: "16" },
      /field n_embd must be a whole number from 1 to \d+, got "16"/,
    ],
    ["zero layers", { ...GPT2, n_layer: 0 }, /field n_layer .* got 0/],
    [
      "heads that do not divide the width",
      { ...GPT2, n_head: 3 },
      /n_embd \/ n_head: 16 is not divisible by 3/,
    ],
    [
      "an unknown activation",
      { ...GPT2, activation_function: "tanh" },
      /field activation_function must be one of gelu_new/,
    ],
    ["cross attention", { ...GPT2, add_cross_attention: true }, /field add_cross_attention must be false/],
    [
      "a pad id outside the vocabulary",
      { ...GPT2, pad_token_id: 48 },
      /field pad_token_id must be below vocab_size 48, got 48/,
    ],
    [
      "an end id outside the vocabulary",
      { ...GPT2, eos_token_id: [1, 99] },
      /field eos_token_id must be below vocab_size 48, got 99/,
    ],
    ["an end id as text", { ...GPT2, eos_token_id: "1" }, /field eos_token_id must be a token id/],
    [
      "OPT without its last norm",
      { model_type: "opt", _remove_final_layer_norm: true },
      /field _remove_final_layer_norm must be false/,
    ],
    ["OPT without biases", { model_type: "opt", enable_bias: false }, /field enable_bias must be true/],
    [
      "OPT with norms without weights",
      { model_type: "opt", layer_norm_elementwise_affine: false },
      /field layer_norm_elementwise_affine must be true/,
    ],
    [
      "embeddings of no width",
      { model_type: "opt", word_embed_proj_dim: 0 },
      /field word_embed_proj_dim must be a whole number from 1/,
    ],
    [
      "quantized weights",
      { ...LLAMA, quantization_config: { quant_method: "gptq", bits: 4 } },
      /field quantization_config must be left out: quantized weights are not supported/,
    ],
    [
      "rotations of a part of each head",
      { ...LLAMA, partial_rotary_factor: 0.5 },
      /field partial_rotary_factor must be 1/,
    ],
    [
      "such rotations among the rope parameters",
      { ...LLAMA, rope_parameters: { rope_type: "default", partial_rotary_factor: 0.5 } },
      /field rope_parameters.partial_rotary_factor must be 1/,
    ],
    [
      "rotations that differ between layers",
      { ...LLAMA, rope_parameters: { full_attention: { rope_theta: 1e6 } } },
      /field rope_parameters.full_attention must be left out/,
    ],
    ["an odd head size", { ...LLAMA, head_dim: 5 }, /field head_dim.* must be even.* got 5/],
    ["an odd head size by division", { ...LLAMA, hidden_size: 12 }, /must be even.* got 3/],
    [
      "llama3 rotations without a factor",
      { ...LLAMA, rope_scaling: { ...LLAMA3_ROPE, factor: undefined } },
      /field rope_scaling.factor must be a number above 0, got nothing/,
    ],
    [
      "a missing size without a default",
      { ...LLAMA, hidden_size: undefined },
      /field hidden_size must be .* got nothing/,
    ],
    [
      "an unknown rope type",
      { ...LLAMA, rope_scaling: { rope_type: "yarn" } },
      /field rope_scaling.rope_type must be default or llama3, got "yarn"/,
    ],
    [
      "kv heads that do not divide heads",
      { ...LLAMA, num_key_value_heads: 3 },
      /num_attention_heads \/ num_key_value_heads: 4/,
    ],
    ["a list", [], /expected a JSON object/],
  ])("refuses %s", (_name, config, message) => {
    const error = { code: "DATA", message: expect.stringMatching(message) as string };
    expect(() => parseModelConfig(config, "lm")).toThrow(expect.objectContaining(error));
  });

  it("answers any JSON with a spec or a typed error, quickly", () => {
    const field = fc.constantFrom(
      "n_embd",
      "n_head",
      "n_layer",
      "n_positions",
      "vocab_size",
      "hidden_size",
      "ffn_dim",
      "head_dim",
      "num_attention_heads",
      "num_key_value_heads",
      "num_hidden_layers",
      "intermediate_size",
      "max_position_embeddings",
      "eos_token_id",
      "rope_scaling",
      "rope_parameters",
      "word_embed_proj_dim",
      "do_layer_norm_before",
      "quantization_config",
      "tie_word_embeddings",
      "sliding_window",
    );
    const value = fc.oneof(
      fc.jsonValue({ maxDepth: 2 }),
      fc.integer({ min: -2, max: 70 }),
      fc.constantFrom(1e9, 2 ** 53, 1e308),
    );
    const type = fc.constantFrom("gpt2", "opt", "llama", "mistral", "qwen2", "qwen3");
    fc.assert(
      fc.property(type, fc.dictionary(field, value, { maxKeys: 8 }), (modelType, fields) => {
        try {
          const spec = parseModelConfig({ ...LLAMA, ...fields, model_type: modelType }, "lm");
          if (spec.layers < 100) expect(layoutOf(spec).size).toBeGreaterThan(0);
        } catch (error) {
          expect(error).toBeInstanceOf(TroupeError);
        }
      }),
      { numRuns: 2_000, seed: 3 },
    );
  });

  it("does not take fields from a polluted prototype", () => {
    const config: object = Object.create({ n_layer: 7 });
    expect(parseModelConfig(Object.assign(config, { ...GPT2, n_layer: undefined }), "lm").layers).toBe(12);
  });

  it.each(FIXTURES)("%s: the config it writes reads back as the same spec", (name) => {
    const config = fixtureJson(name, "config.json");
    const spec = parseModelConfig(config, fixtureHead(name));
    expect(parseModelConfig(JSON.parse(JSON.stringify(toHfConfig(spec))), spec.head)).toEqual(spec);
    expect(toHfConfig(spec).architectures).toEqual((config as { architectures: string[] }).architectures);
  });

  it.each<[string, object, number, object | null]>([
    ["transformers 4", { rope_theta: 5e5 }, 5e5, null],
    ["transformers 5", { rope_parameters: { rope_type: "default", rope_theta: 5e5 } }, 5e5, null],
    ["neither", {}, 10_000, null],
    [
      "a theta beside rope_parameters",
      { rope_parameters: { rope_type: "default" }, rope_theta: 5e5 },
      5e5,
      null,
    ],
    [
      "both objects: rope_scaling wins",
      {
        rope_scaling: LLAMA3_ROPE,
        rope_parameters: { rope_type: "default", rope_theta: 7e5 },
        rope_theta: 5e5,
      },
      5e5,
      { factor: 8, originalContextTokens: 16 },
    ],
    [
      "an empty rope_scaling beside rope_parameters",
      { rope_scaling: {}, rope_parameters: { rope_type: "default", rope_theta: 5e5 } },
      5e5,
      null,
    ],
    [
      "a theta inside rope_scaling",
      { rope_scaling: { ...LLAMA3_ROPE, rope_theta: 5e5 }, rope_theta: 7e5 },
      5e5,
      { factor: 8, originalContextTokens: 16 },
    ],
    [
      "llama3 without its original context: the model's own",
      { rope_scaling: { ...LLAMA3_ROPE, original_max_position_embeddings: undefined } },
      10_000,
      { factor: 8, originalContextTokens: 64 },
    ],
  ])("reads rope settings as transformers does: %s", (_, fields, theta, scaling) => {
    const { ropeTheta, ropeScaling } = parseModelConfig({ ...LLAMA, ...fields }, "lm");
    expect(ropeTheta).toBe(theta);
    if (scaling === null) expect(ropeScaling).toBeNull();
    else expect(ropeScaling).toMatchObject(scaling);
  });

  it("offers no more context than a sliding window sees", () => {
    const windowed = { ...LLAMA, num_key_value_heads: 2, sliding_window: 32 };
    expect(parseModelConfig({ ...windowed, model_type: "mistral" }, "lm").contextTokens).toBe(32);
    expect(parseModelConfig({ ...windowed, model_type: "qwen2" }, "lm").contextTokens).toBe(64);
  });

  it("Llama 3 keeps fast rotations and divides slow ones by the factor", () => {
    const scaled = ropeFrequencies(
      parseModelConfig({ ...LLAMA, head_dim: 32, rope_theta: 100, rope_scaling: LLAMA3_ROPE }, "lm"),
    );
    const plain = ropeFrequencies(parseModelConfig({ ...LLAMA, head_dim: 32, rope_theta: 100 }, "lm"));
    // turns in 16 positions: 16·f / 2π; above 4 keep, below 1 divide by 8, between blend linearly
    plain.forEach((frequency, i) => {
      const turns = (16 * frequency) / (2 * Math.PI);
      const blend = Math.min(1, Math.max(0, (turns - 1) / 3));
      expect(scaled[i] / frequency).toBeCloseTo(blend + (1 - blend) / 8, 6);
    });
    expect(scaled[15] / plain[15]).toBeCloseTo(1 / 8, 6);
  });
});

describe("parameters", () => {
  const spec = freshGpt2Spec({
    head: "lm",
    layers: 2,
    hidden: 64,
    heads: 4,
    contextTokens: 32,
    vocabularySize: 300,
    eosTokenId: 1,
    padTokenId: 0,
  });
  const deviation = (values: Float32Array) =>
    Math.sqrt(values.reduce((sum, value) => sum + value * value, 0) / values.length);

  it("use Hugging Face names and shapes, sorted", () => {
    const { entries } = layoutOf(spec);
    const names = entries.map(({ name }) => name);
    expect(names).toEqual([...names].sort());
    const shapes = Object.fromEntries(entries.map(({ name, shape }) => [name, shape]));
    expect(shapes["transformer.h.0.attn.c_attn.weight"]).toEqual([64, 192]);
    expect(shapes["transformer.h.1.mlp.c_proj.weight"]).toEqual([256, 64]);
    expect(shapes["transformer.wpe.weight"]).toEqual([32, 64]);
    expect(
      Object.keys(tensorPlans(withHead(spec, "scalar"))).filter((name) => !names.includes(name)),
    ).toEqual(["score.weight"]);
  });

  it("start as GPT-2's: N(0, 0.02), residual projections / √(2L), norms 1, biases 0, score head 1/√(D+1)", () => {
    const scalar = withHead(spec, "scalar");
    const layout = layoutOf(scalar);
    const values = initParams(scalar, 9);
    const view = (name: string) => viewOf(layout, values, name);
    expect(deviation(view("transformer.wte.weight"))).toBeCloseTo(0.02, 3);
    expect(deviation(view("transformer.h.0.mlp.c_fc.weight"))).toBeCloseTo(0.02, 3);
    expect(deviation(view("transformer.h.0.mlp.c_proj.weight"))).toBeCloseTo(0.01, 3);
    expect(deviation(view("transformer.h.1.attn.c_proj.weight"))).toBeCloseTo(0.01, 3);
    expect(new Set(view("transformer.ln_f.weight"))).toEqual(new Set([1]));
    expect(new Set(view("transformer.h.0.attn.c_attn.bias"))).toEqual(new Set([0]));
    expect(Math.abs(deviation(view("score.weight")) * Math.sqrt(65) - 1)).toBeLessThan(0.3); // 64 samples
  });

  it("depend on the seed, and the backbone not on the head", () => {
    const lm = initParams(spec, 9);
    const scalar = withHead(spec, "scalar");
    const name = "transformer.h.1.mlp.c_fc.weight";
    expect(viewOf(layoutOf(scalar), initParams(scalar, 9), name)).toEqual(viewOf(layoutOf(spec), lm, name));
    expect(viewOf(layoutOf(spec), initParams(spec, 10), name)).not.toEqual(viewOf(layoutOf(spec), lm, name));
  });

  it("spec keys tell any two specs apart and ignore field order", () => {
    const reordered = Object.fromEntries(Object.entries(spec).reverse()) as unknown as typeof spec;
    expect(specKey(reordered)).toBe(specKey(spec));
    for (const [field, value] of Object.entries({
      normEpsilon: 1e-6,
      heads: 2,
      contextTokens: 33,
      head: "scalar",
    })) {
      expect(specKey({ ...spec, [field]: value })).not.toBe(specKey(spec));
    }
  });
});
