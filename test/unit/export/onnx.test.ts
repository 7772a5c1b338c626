import { AutoModelForCausalLM, env, ModelRegistry, pipeline, Tensor } from "@huggingface/transformers";
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createEngine } from "../../../src/engine/create-engine.js";
import type { Engine } from "../../../src/engine/engine.js";
import { exportModel } from "../../../src/export/export-model.js";
import { onnxDecoder } from "../../../src/export/onnx-decoder.js";
import { loadModelDir, saveModelDir } from "../../../src/models/checkpoint-dir.js";
import { mergeAdapterDir, saveAdapterDir } from "../../../src/models/lora-files.js";
import {
  initParams,
  layoutOf,
  parseModelConfig,
  toHfConfig,
  type ModelSpec,
} from "../../../src/models/model-spec.js";
import { Generator } from "../../../src/rollout/generator.js";
import { adapted } from "../lora/models.js";

const VOCABULARY = 40;
const NEW_TOKENS = 10;
const LLAMA = {
  vocab_size: VOCABULARY,
  hidden_size: 16,
  intermediate_size: 24,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  max_position_embeddings: 64,
  pad_token_id: 1,
  initializer_range: 0.5,
};
const OPT = { ...LLAMA, model_type: "opt", ffn_dim: 24, init_std: 0.5 };
const CONFIGS: Record<string, Record<string, unknown>> = {
  gpt2: {
    model_type: "gpt2",
    vocab_size: VOCABULARY,
    n_embd: 16,
    n_layer: 2,
    n_head: 4,
    n_positions: 64,
    pad_token_id: 1,
    initializer_range: 0.5,
  },
  opt: OPT,
  "opt-350m": { ...OPT, word_embed_proj_dim: 12, do_layer_norm_before: false },
  llama: {
    ...LLAMA,
    model_type: "llama",
    tie_word_embeddings: false,
    rope_scaling: {
      rope_type: "llama3",
      factor: 4,
      low_freq_factor: 1,
      high_freq_factor: 4,
      original_max_position_embeddings: 16,
    },
  },
  "llama with biases": { ...LLAMA, model_type: "llama", attention_bias: true, mlp_bias: true },
  mistral: { ...LLAMA, model_type: "mistral", sliding_window: null },
  qwen2: { ...LLAMA, model_type: "qwen2", num_key_value_heads: 1 },
  qwen3: { ...LLAMA, model_type: "qwen3", head_dim: 6 },
};

/** A word for each id, so that the pipeline's text can be compared. */
const WORDS = Array.from({ length: VOCABULARY }, (_, id) => `w${id}`);
const TOKENIZER = {
  version: "1.0",
  added_tokens: [],
  normalizer: null,
  pre_tokenizer: { type: "Whitespace" },
  post_processor: null,
  decoder: null,
  model: {
    type: "WordLevel",
    vocab: Object.fromEntries(WORDS.map((word, id) => [word, id])),
    unk_token: "w0",
  },
};

let folder: string;
let engine: Engine;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "troupe-export-"));
  ({ engine } = await createEngine({ name: "onnx" }));
  env.allowRemoteModels = false;
});
afterAll(async () => {
  await engine.dispose();
  await rm(folder, { recursive: true, force: true });
});

/** Makes a random model, writes it and its onnx folder. */
async function exported(
  family: string,
  options: { readonly maxFileBytes?: number } = {},
): Promise<{ spec: ModelSpec; values: Float32Array; out: string }> {
  const spec = parseModelConfig(CONFIGS[family], "lm");
  const values = initParams(spec, 21);
  const name = [family, ...Object.values(options)].join("-");
  const [model, out] = [join(folder, name), join(folder, `${name}-onnx`)];
  await saveModelDir(model, spec, values);
  await writeFile(join(model, "tokenizer.json"), JSON.stringify(TOKENIZER));
  const config = {
    tokenizer_class: "PreTrainedTokenizerFast",
    unk_token: "w0",
    pad_token: "w1",
    padding_side: "left",
  };
  await writeFile(join(model, "tokenizer_config.json"), JSON.stringify(config));
  await exportModel({ model, format: "onnx", out, ...options });
  return { spec, values, out };
}

/** Our generator's greedy answers. */
async function greedy(
  spec: ModelSpec,
  values: Float32Array,
  prompts: readonly number[][],
): Promise<number[][]> {
  const params = engine.createArena(layoutOf(spec), values);
  const generator = new Generator({ engine, spec, slots: 2, maxSequenceTokens: 32 });
  const sampling = {
    seed: 1,
    temperature: 1,
    topK: 0,
    topP: 1,
    minNewTokens: 0,
    maxNewTokens: NEW_TOKENS,
    repetitionPenalty: 1,
    greedy: true,
  };
  const requests = prompts.map((ids, i) => ({ key: String(i), promptIds: Int32Array.from(ids) }));
  const answers = await generator.generate(requests, sampling, params);
  generator.dispose();
  return answers.map(({ responseIds }) => [...responseIds]);
}

const PROMPTS = [
  [5, 9, 33, 2, 17, 8, 21],
  [30, 4, 12],
];
const big = (ids: readonly number[], dims: number[]) =>
  new Tensor("int64", BigInt64Array.from(ids.map(BigInt)), dims);

describe("an exported onnx folder", () => {
  it.each(Object.keys(CONFIGS))(
    "of a %s model generates our greedy tokens in transformers.js, left-padded batch included",
    async (family) => {
      const { spec, values, out } = await exported(family);
      const expected = await greedy(spec, values, PROMPTS);
      expect(new Set(expected.flat()).size).toBeGreaterThan(3); // a model that repeats one token proves little
      const model = await AutoModelForCausalLM.from_pretrained(out, { dtype: "fp32" });
      const width = PROMPTS[0].length;
      const padded = PROMPTS.flatMap((ids) => [...new Array<number>(width - ids.length).fill(1), ...ids]);
      const real = PROMPTS.flatMap((ids) => [
        ...new Array<number>(width - ids.length).fill(0),
        ...ids.map(() => 1),
      ]);
      const output = (await model.generate({
        inputs: big(padded, [2, width]),
        attention_mask: big(real, [2, width]),
        max_new_tokens: NEW_TOKENS,
        do_sample: false,
      } as never)) as Tensor;
      const rows = output.tolist() as bigint[][];
      expect(rows.map((row) => row.slice(width).map(Number))).toEqual(expected);
      await model.dispose();
    },
  );

  it("runs in pipeline('text-generation', folder), its weights in several files where one could not hold them", async () => {
    const { spec, values, out } = await exported("gpt2", { maxFileBytes: 16_384 });
    const data = (await readdir(join(out, "onnx"))).filter((name) => name !== "model.onnx").sort();
    expect(data.slice(0, 2)).toEqual(["model.onnx_data", "model.onnx_data_1"]);
    const sizes = await Promise.all(data.map(async (name) => (await stat(join(out, "onnx", name))).size));
    expect(Math.max(...sizes)).toBeLessThanOrEqual(16_384);
    const [expected] = await greedy(spec, values, [PROMPTS[0]]);
    const generate = await pipeline("text-generation", out);
    const text = PROMPTS[0].map((id) => WORDS[id]).join(" ");
    const [answer] = (await generate(text, {
      max_new_tokens: NEW_TOKENS,
      do_sample: false,
      return_full_text: true,
    })) as {
      generated_text: string;
    }[];
    const words = answer.generated_text.split(/\s+/);
    expect(words.slice(-NEW_TOKENS)).toEqual(expected.map((id) => WORDS[id]));
    await generate.dispose();
  });

  it("names the files it has wherever it is opened", async () => {
    const { out } = await exported("gpt2");
    const inBrowser = { device: "wasm" } as const;
    expect(await ModelRegistry.get_model_files(out, inBrowser)).toContain("onnx/model.onnx");
    const { out: split } = await exported("gpt2", { maxFileBytes: 16_384 });
    const needed = await ModelRegistry.get_model_files(split, inBrowser);
    const written = (await readdir(join(split, "onnx"))).map((name) => `onnx/${name}`);
    expect(needed.filter((name) => name.startsWith("onnx/")).sort()).toEqual(written.sort());
  });

  it("is refused for a scoring model, and never written over its own model", async () => {
    const spec = parseModelConfig(CONFIGS.gpt2, "scalar");
    expect(() => onnxDecoder(spec, initParams(spec, 1))).toThrow(/needs a language model/);
    await expect(exportModel({ model: folder, format: "onnx", out: `${folder}/` })).rejects.toThrow(
      /is the model itself/,
    );
  });
});

/** A folder whose files name three tokens that end an answer, and a window that a spec does not hold. */
async function windowed(name: string): Promise<string> {
  const spec = parseModelConfig({ ...LLAMA, model_type: "mistral" }, "lm");
  const model = join(folder, name);
  const hfConfig = {
    ...toHfConfig(spec),
    ...{ sliding_window: 24, max_position_embeddings: 64, eos_token_id: 2 },
    ...{ torch_dtype: "bfloat16", dtype: "bfloat16" },
  };
  const generation = { eos_token_id: [2, 3, 4], temperature: 0.6 };
  await saveModelDir(model, spec, initParams(spec, 5), { hfConfig, generation });
  return model;
}
const json = async (...path: string[]) =>
  JSON.parse(await readFile(join(...path), "utf8")) as Record<string, unknown>;

describe("an exported folder", () => {
  it.each(["hf", "onnx"] as const)("of format %s ends answers where the model does", async (format) => {
    const out = join(folder, `ends-${format}`);
    await exportModel({ model: await windowed(`ends-from-${format}`), format, out });
    expect((await json(out, "config.json")).eos_token_id).toEqual([2, 3, 4]);
    expect(await json(out, "generation_config.json")).toMatchObject({
      eos_token_id: [2, 3, 4],
      temperature: 0.6,
    });
  });
});

describe("an exported hf folder", () => {
  it.each([undefined, ["GPT2Model"]])(
    "keeps the score of a reward model whose config names architectures %j",
    async (architectures) => {
      const spec = parseModelConfig(CONFIGS.gpt2, "scalar");
      const [model, out] = ["unnamed", "unnamed-out"].map((name) =>
        join(folder, `${name}-${architectures?.length}`),
      );
      const values = initParams(spec, 8);
      await saveModelDir(model, spec, values, { hfConfig: { ...toHfConfig(spec), architectures } });
      const { warnings } = await exportModel({ model, format: "hf", out });
      expect(warnings).toEqual([]);
      expect((await loadModelDir(out, "scalar")).values).toEqual(values);
      expect((await json(out, "config.json")).architectures).toEqual(["GPT2ForSequenceClassification"]);
    },
  );

  it("keeps the model's own config, in float32", async () => {
    const out = join(folder, "window-out");
    await exportModel({ model: await windowed("window-from"), format: "hf", out });
    const config = await json(out, "config.json");
    expect(config).toMatchObject({ max_position_embeddings: 64, sliding_window: 24, torch_dtype: "float32" });
    expect(Object.keys(config)).not.toContain("dtype");
  });

  it("is the model with its adapter merged", async () => {
    const { plain, spec, base, weights } = adapted("llama");
    const [model, adapter, out] = ["base", "adapter", "merged"].map((name) => join(folder, name));
    await saveModelDir(model, plain, base);
    await saveAdapterDir(adapter, spec, weights.trained, model);
    const { parameters } = await exportModel({ model, adapter, format: "hf", out });
    const expected = base.slice();
    await mergeAdapterDir(adapter, plain, expected);
    expect((await loadModelDir(out, "lm")).values).toEqual(expected);
    expect(parameters).toBe(base.length);
    await expect(stat(join(out, "onnx"))).rejects.toThrow();
  });
});
