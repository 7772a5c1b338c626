/** Writes a model in a format that other programs read. */
import { mkdir, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { modelProto } from "../engine/trace/model-proto.js";
import { copyTokenizerFiles, loadModelDir, saveModelDir } from "../models/checkpoint-dir.js";
import {
  generationConfig,
  readGenerationDefaults,
  type GenerationConfig,
} from "../models/generation-defaults.js";
import { mergeAdapterDir } from "../models/lora-files.js";
import { readFolderJson } from "../models/model-files.js";
import { headOf } from "../models/model-head.js";
import { layoutOf, toHfConfig, type ModelSpec } from "../models/model-spec.js";
import { configError, storageError } from "../shared/errors.js";
import { portableConfig } from "../shared/portable-config.js";
import { isJsonObject } from "../shared/strict-json.js";
import { MAX_FILE_BYTES, moveOut, writeDataFile } from "./external-data.js";
import { onnxDecoder } from "./onnx-decoder.js";

export type ExportFormat = "hf" | "onnx";

const MODEL_NAME = "model.onnx";

export interface ExportModelOptions {
  /** Hugging Face model folder. */
  readonly model: string;
  readonly format: ExportFormat;
  /** Folder to write; made when it does not exist. */
  readonly out: string;
  /** PEFT adapter folder to merge in first. */
  readonly adapter?: string;
  /** Largest file with weights of the onnx format, bytes. @default just below 2 GiB */
  readonly maxFileBytes?: number;
}

export interface ExportedModel {
  readonly spec: ModelSpec;
  readonly parameters: number;
  /** What a reader should know. */
  readonly warnings: readonly string[];
}

/**
 *   hf    config.json, model.safetensors in float32, tokenizer: what transformers loads
 *   onnx  the same folder with onnx/model.onnx: what transformers.js' pipeline("text-generation") loads. Beyond 2 GiB
 *         the weights are in onnx/model.onnx_data and, if need be, _data_1 and so on
 *
 * @throws {TroupeError} DATA when the model or adapter cannot be read; CONFIG when the format cannot hold it
 */
export async function exportModel({
  model,
  format,
  out,
  adapter,
  maxFileBytes = MAX_FILE_BYTES,
}: ExportModelOptions): Promise<ExportedModel> {
  if (resolve(model) === resolve(out)) {
    throw configError(`--out ${out} is the model itself; name another folder`);
  }
  const { spec: stated, values, warnings } = await loadModelDir(model, await headOf(model));
  const defaults = await readGenerationDefaults(model, []);
  const spec: ModelSpec = { ...stated, eosTokenIds: defaults.eosIds };
  const generation = generationConfig(defaults, { bosId: spec.bosTokenId, padId: spec.padTokenId });
  if (adapter !== undefined) await mergeAdapterDir(adapter, spec, values);
  if (format === "hf") {
    const hfConfig = await exportedConfig(model, spec);
    await saveModelDir(out, spec, values, { tokenizerDir: model, hfConfig, generation });
  } else await saveOnnxDir(out, model, { spec, values, generation, maxFileBytes });
  return { spec, parameters: layoutOf(spec).size, warnings };
}

/** The model's own config.json, which may say more than a spec holds, such as a sliding window. */
async function exportedConfig(model: string, spec: ModelSpec): Promise<Record<string, unknown>> {
  const config = await readFolderJson(model, "config.json");
  const { architectures, eos_token_id } = toHfConfig(spec);
  return portableConfig({ ...(isJsonObject(config) ? config : {}), architectures, eos_token_id });
}

interface OnnxSource {
  readonly spec: ModelSpec;
  readonly values: Float32Array;
  readonly generation: GenerationConfig;
  readonly maxFileBytes: number;
}

async function saveOnnxDir(out: string, model: string, source: OnnxSource): Promise<void> {
  const { spec, values, generation, maxFileBytes } = source;
  const { graph, symbols } = onnxDecoder(spec, values);
  const data = values.byteLength > maxFileBytes ? moveOut(graph, MODEL_NAME, maxFileBytes) : [];
  // Without its dtype transformers.js looks in browsers for a quantized model, which is not there.
  const loading = { "transformers.js_config": { dtype: "fp32", use_external_data_format: data.length } };
  const files: Record<string, unknown> = {
    "config.json": { ...toHfConfig(spec), ...loading },
    "generation_config.json": generation,
  };
  try {
    await mkdir(join(out, "onnx"), { recursive: true });
    await writeFile(join(out, "onnx", MODEL_NAME), modelProto(graph, symbols));
    for (const file of data) await writeDataFile(join(out, "onnx", file.name), file);
    for (const [name, value] of Object.entries(files)) {
      await writeFile(join(out, name), JSON.stringify(value, null, 2) + "\n");
    }
    await copyTokenizerFiles(model, out);
  } catch (cause) {
    throw storageError(`${out}: cannot be written`, { cause });
  }
}
