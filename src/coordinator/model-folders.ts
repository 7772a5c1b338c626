/**
 * The models of a run as Hugging Face directories under DIR/models. The coordinator never looks inside a model: it
 * writes config.json, copies the tokenizer's files and the safetensors file a learner published.
 */
import { copyFile, mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import type { Config } from "../config/schema.js";
import type { TokenizerInfo } from "../data/types.js";
import type { ModelRef } from "../rpc/generated/troupe/v1/ModelRef.js";
import { dataError } from "../shared/errors.js";
import { portableConfig } from "../shared/portable-config.js";
import { SafetensorsFile } from "../shared/safetensors.js";
import { makeSyncedFolder, placeSynced } from "../shared/synced-files.js";
import type { ArtifactStore } from "./artifact-store.js";
import type { DurableFiles } from "./journal/durable-files.js";

/** A model as later stages refer to it. */
export interface ModelSource extends Omit<ModelRef, "role" | "head" | "hfConfigJson"> {
  /** Its config.json. */
  readonly hfConfigJson: string;
  /** Its folder; null for fresh weights, which have none. Stays with the coordinator: it is no field of the message. */
  readonly directory: string | null;
}

/** Embedding rows are padded to a multiple of this, as DeepSpeed-Chat does, so that matrix kernels stay aligned. */
const VOCABULARY_MULTIPLE = 8;

/** Metadata key under which a published adapter carries its adapter_config.json (see src/models/lora-files.ts). */
const ADAPTER_CONFIG_KEY = "troupe_adapter_config";

/** Does a stage end with an adapter that can stand alone? */
export const hasAdapters = ({ model }: Config): boolean => model.lora?.onlyOptimizeLora === true;

export class ModelFolders {
  constructor(
    private readonly folder: string,
    private readonly config: Config,
    private readonly artifacts: ArtifactStore,
    private readonly tokenizer: TokenizerInfo,
    /** generation_config.json of language models; config.json ends answers with its `eos_token_id` too. */
    private readonly generation: Readonly<Record<string, unknown>>,
    private readonly files: DurableFiles,
  ) {}

  /** The model a run starts from when the user gives none; the learners initialise it from the seed. */
  fresh(): ModelSource {
    const { model, seed } = this.config;
    const { layers, hidden, heads, contextTokens } = model.fresh;
    const hfConfig = {
      architectures: ["GPT2LMHeadModel"],
      model_type: "gpt2",
      vocab_size: Math.ceil(this.tokenizer.vocabSize / VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE,
      n_positions: contextTokens,
      n_embd: hidden,
      n_layer: layers,
      n_head: heads,
      n_inner: null,
      activation_function: "gelu_new",
      layer_norm_epsilon: 1e-5,
      initializer_range: initializerRange(hidden),
      resid_pdrop: 0,
      embd_pdrop: 0,
      attn_pdrop: 0,
      scale_attn_weights: true,
      tie_word_embeddings: true,
      bos_token_id: this.tokenizer.bosId ?? this.tokenizer.eosId,
      eos_token_id: this.tokenizer.eosId,
      pad_token_id: this.tokenizer.padId,
      torch_dtype: "float32",
    };
    return { hfConfigJson: JSON.stringify(hfConfig), parameters: null, initSeed: seed, directory: null };
  }

  /** A model directory on the coordinator's disk. @param weightsFile where its weights are, when not in the directory */
  async adopt(
    name: string,
    directory: string,
    weightsFile = join(directory, "model.safetensors"),
  ): Promise<ModelSource> {
    const configFile = join(directory, "config.json");
    const hfConfigJson = await readFile(configFile, "utf8").catch((cause: unknown) => {
      throw dataError(`${configFile}: cannot be read; expected a Hugging Face model directory`, { cause });
    });
    const parameters = await this.artifacts.adopt(name, weightsFile).catch((cause: unknown) => {
      throw dataError(`${weightsFile}: cannot be read; expected the weights as one safetensors file`, {
        cause,
      });
    });
    return { hfConfigJson, parameters, initSeed: this.config.seed, directory };
  }

  pathOf(name: string): string {
    return join(this.folder, name);
  }

  /** Writes DIR/models/<name> as a complete Hugging Face directory, to stay once this returns. @returns its path */
  async save(
    name: string,
    source: ModelSource,
    head: "lm" | "scalar",
    parametersFile: string,
  ): Promise<string> {
    const target = this.pathOf(name);
    await makeSyncedFolder(this.folder);
    await this.write(`${target}.partial`, source, head, parametersFile);
    await placeSynced(`${target}.partial`, target);
    await this.files.keep(target);
    return target;
  }

  /**
   * Writes DIR/models/<stage>-adapter as PEFT reads it, to stay once this returns: the adapter alone, to be put on the
   * model its stage started from.
   * @param base that model
   * @param file the safetensors file a learner published; its metadata carries the adapter's config
   */
  async saveAdapter(stage: "sft" | "reward" | "ppo", base: ModelSource, file: string): Promise<void> {
    const opened = await SafetensorsFile.open(file);
    await opened.close();
    const config = JSON.parse(opened.header.metadata[ADAPTER_CONFIG_KEY]) as Record<string, unknown>;
    const target = this.pathOf(`${stage}-adapter`);
    const partial = `${target}.partial`;
    await makeSyncedFolder(this.folder);
    await rm(partial, { recursive: true, force: true });
    await mkdir(partial);
    await copyFile(file, join(partial, "adapter_model.safetensors"));
    const text = JSON.stringify({ ...config, base_model_name_or_path: base.directory }, null, 2);
    await writeFile(join(partial, "adapter_config.json"), text + "\n");
    await placeSynced(partial, target);
    await this.files.keep(target);
  }

  /** The files of a model directory, into `directory`. */
  async write(
    directory: string,
    source: ModelSource,
    head: "lm" | "scalar",
    parametersFile: string,
  ): Promise<void> {
    await rm(directory, { recursive: true, force: true });
    await mkdir(directory, { recursive: true });
    const hfConfig = portableConfig(JSON.parse(source.hfConfigJson) as Record<string, unknown>);
    if (head === "scalar") Object.assign(hfConfig, scalarHead(hfConfig, this.tokenizer.padId));
    else hfConfig.eos_token_id = this.generation.eos_token_id;
    await writeFile(join(directory, "config.json"), JSON.stringify(hfConfig, null, 2) + "\n");
    if (head === "lm") {
      const text = JSON.stringify(this.generation, null, 2);
      await writeFile(join(directory, "generation_config.json"), text + "\n");
    }
    for (const file of this.tokenizer.files) await copyFile(file, join(directory, basename(file)));
    await copyFile(parametersFile, join(directory, "model.safetensors"));
  }
}

/** GPT-2's deviation 0.02 belongs to width 768; narrower models keep the variance of their logits with more. */
const initializerRange = (hidden: number): number => 0.02 * Math.max(1, Math.sqrt(768 / hidden));

/** What makes transformers load the directory as AutoModelForSequenceClassification with one score. */
function scalarHead(hfConfig: Record<string, unknown>, padId: number): Record<string, unknown> {
  const [causal] = (hfConfig.architectures as string[] | undefined) ?? [];
  const architecture = causal?.replace(/(LMHeadModel|ForCausalLM)$/, "ForSequenceClassification");
  return {
    ...(architecture === undefined ? {} : { architectures: [architecture] }),
    num_labels: 1,
    id2label: { "0": "LABEL_0" },
    label2id: { LABEL_0: 0 },
    pad_token_id: padId,
  };
}
