import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { parseConfig } from "../../../src/config/load.js";
import { ArtifactStore } from "../../../src/coordinator/artifact-store.js";
import { FILES_ON_DISK } from "../../../src/coordinator/journal/durable-files.js";
import { ModelFolders } from "../../../src/coordinator/model-folders.js";
import type { TokenizerInfo } from "../../../src/data/types.js";
import { saveModelDir } from "../../../src/models/checkpoint-dir.js";
import { writeAdapterFile } from "../../../src/models/lora-files.js";
import { initParams, layoutOf, parseModelConfig, type Head } from "../../../src/models/model-spec.js";
import { writeSafetensors } from "../../../src/shared/safetensors.js";
import { adapted } from "../lora/models.js";

const root = mkdtempSync(join(tmpdir(), "troupe-folders-"));
afterAll(() => rmSync(root, { recursive: true }));

const SIZES = {
  vocab_size: 12,
  hidden_size: 8,
  num_hidden_layers: 1,
  num_attention_heads: 2,
  max_position_embeddings: 16,
};
/** As transformers 5 writes them: `dtype`, and no `torch_dtype`. */
const CONFIGS: Record<string, Record<string, unknown>> = {
  llama: {
    ...SIZES,
    model_type: "llama",
    architectures: ["LlamaForCausalLM"],
    intermediate_size: 12,
    rope_parameters: { rope_type: "default", rope_theta: 500_000 },
    dtype: "bfloat16",
    eos_token_id: 2,
    transformers_version: "5.2.0",
  },
  opt: {
    ...SIZES,
    model_type: "opt",
    architectures: ["OPTForCausalLM"],
    word_embed_proj_dim: 8,
    ffn_dim: 12,
    dtype: "float16",
    torch_dtype: "float16",
    eos_token_id: 2,
    transformers_version: "5.2.0",
  },
};
const GENERATION = { bos_token_id: 0, eos_token_id: [1, 2], pad_token_id: 3, top_p: 0.9 };

const json = (...path: string[]) =>
  JSON.parse(readFileSync(join(root, ...path), "utf8")) as Record<string, unknown>;

let folders: ModelFolders;
beforeAll(() => {
  writeFileSync(join(root, "tokenizer.json"), "{}");
  const { config } = parseConfig({ file: "test", text: "data: { path: rows.jsonl }\nstages: [ppo]\n" });
  const tokenizer = { eosId: 1, bosId: 0, padId: 3, vocabSize: 12, files: [join(root, "tokenizer.json")] };
  const artifacts = new ArtifactStore(join(root, "artifacts"));
  folders = new ModelFolders(
    join(root, "models"),
    config,
    artifacts,
    tokenizer as unknown as TokenizerInfo,
    GENERATION,
    FILES_ON_DISK,
  );
});

/** A folder of the user's with weights. */
async function userModel(family: string, head: Head): Promise<{ directory: string; weights: string }> {
  const directory = join(root, `${family}-${head}`);
  const spec = parseModelConfig(CONFIGS[family], head);
  await saveModelDir(directory, spec, initParams(spec, 1), { hfConfig: CONFIGS[family] });
  return { directory, weights: join(directory, "model.safetensors") };
}

describe("a model folder that a run writes", () => {
  it.each(
    Object.keys(CONFIGS).flatMap((family) =>
      (["lm", "scalar"] as const).map((head) => [family, head] as const),
    ),
  )("of a %s model with a %s head says that its weights are float32", async (family, head) => {
    const { directory, weights } = await userModel(family, head);
    const source = await folders.adopt(`${family}-${head}`, directory);
    const name = `saved-${family}-${head}`;
    await folders.save(name, source, head, weights);
    const { dtype: _dtype, rope_parameters: _rope, architectures, ...stated } = CONFIGS[family];
    const config = json("models", name, "config.json");
    expect(Object.keys(config)).not.toContain("dtype"); // it would win over torch_dtype
    expect(config.torch_dtype).toBe("float32");
    expect(parseModelConfig(config, head).family).toBe(family);
    if (family === "llama") expect(config).toMatchObject({ rope_theta: 500_000, rope_scaling: null });
    const [causal] = architectures as string[];
    const score = causal.replace("ForCausalLM", "ForSequenceClassification");
    expect(config.architectures).toEqual([head === "lm" ? causal : score]);
    // Everything else is the user's.
    const ours = ["torch_dtype", "architectures", "eos_token_id", "pad_token_id"];
    for (const [field, value] of Object.entries(stated))
      if (!ours.includes(field)) expect(config[field]).toEqual(value);
  });

  it("ends answers with every token the run does, and keeps the source's settings of generation", async () => {
    const { directory, weights } = await userModel("llama", "lm");
    const source = await folders.adopt("ends", directory);
    await folders.save("ends", source, "lm", weights);
    expect(json("models", "ends", "config.json").eos_token_id).toEqual([1, 2]);
    expect(json("models", "ends", "generation_config.json")).toEqual(GENERATION);
  });
});

describe("an adapter that a run writes", () => {
  it("names the model its stage started from, an sft model of an earlier command included", async () => {
    const { spec, weights } = adapted("llama");
    const file = join(root, "adapter.safetensors");
    await writeAdapterFile(file, spec, weights.trained);
    // `stages` is [ppo]: the sft model lies in the run directory from before.
    const directory = folders.pathOf("sft");
    mkdirSync(directory, { recursive: true });
    writeFileSync(join(directory, "config.json"), JSON.stringify(CONFIGS.llama));
    const plain = parseModelConfig(CONFIGS.llama, "lm");
    await writeSafetensors(
      join(directory, "model.safetensors"),
      layoutOf(plain).entries,
      initParams(plain, 1),
    );
    const policy = await folders.adopt("models/sft", directory);
    mkdirSync(join(root, "models", "ppo-adapter.partial"));
    writeFileSync(join(root, "models", "ppo-adapter.partial", "left-over"), "");
    await folders.saveAdapter("ppo", policy, file);
    expect(json("models", "ppo-adapter", "adapter_config.json").base_model_name_or_path).toBe(directory);
    expect((await readdir(join(root, "models", "ppo-adapter"))).sort()).toEqual([
      "adapter_config.json",
      "adapter_model.safetensors",
    ]);
    await folders.saveAdapter("ppo", folders.fresh(), file);
    expect(json("models", "ppo-adapter", "adapter_config.json").base_model_name_or_path).toBeNull();
  });
});
