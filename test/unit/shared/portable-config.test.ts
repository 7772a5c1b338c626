import { describe, expect, it } from "vitest";
import { parseModelConfig } from "../../../src/models/model-spec.js";
import { portableConfig } from "../../../src/shared/portable-config.js";

const LLAMA = {
  model_type: "llama",
  hidden_size: 16,
  num_attention_heads: 4,
  num_hidden_layers: 2,
  intermediate_size: 24,
  max_position_embeddings: 64,
  vocab_size: 48,
};
const LLAMA3 = {
  rope_type: "llama3",
  factor: 8,
  low_freq_factor: 1,
  high_freq_factor: 4,
  original_max_position_embeddings: 16,
};

describe("portableConfig", () => {
  it.each<[string, object, object]>([
    ["transformers 4's own form", { rope_theta: 5e5, rope_scaling: LLAMA3 }, {}],
    [
      "a theta in rope_parameters",
      { rope_parameters: { rope_type: "default", rope_theta: 5e5 } },
      { rope_theta: 5e5, rope_scaling: null },
    ],
    [
      "a scaling in rope_parameters",
      { rope_parameters: { ...LLAMA3, rope_theta: 5e5 } },
      { rope_theta: 5e5, rope_scaling: LLAMA3 },
    ],
    [
      "a theta beside rope_parameters",
      { rope_theta: 7e5, rope_parameters: { rope_type: "default" } },
      { rope_theta: 7e5, rope_scaling: null },
    ],
    [
      "both objects",
      { rope_scaling: LLAMA3, rope_parameters: { rope_type: "default", rope_theta: 7e5 }, rope_theta: 5e5 },
      { rope_theta: 5e5, rope_scaling: LLAMA3 },
    ],
  ])("says in the words of transformers 4 what the model is: %s", (_, fields, expected) => {
    const config = portableConfig({ ...LLAMA, ...fields });
    expect(config).toMatchObject(expected);
    expect(Object.keys(config)).not.toContain("rope_parameters");
    expect(parseModelConfig(config, "lm")).toEqual(parseModelConfig({ ...LLAMA, ...fields }, "lm"));
  });

  it("adds no rope settings to a model without rotations, and says float32 once", () => {
    const config = portableConfig({ model_type: "gpt2", dtype: "bfloat16", n_embd: 8 });
    expect(config).toEqual({ model_type: "gpt2", n_embd: 8, torch_dtype: "float32" });
  });
});
