/**
 * Adapters in PEFT's format: adapter_config.json and adapter_model.safetensors. Tensors are named as
 * `PeftModel.save_pretrained` names them: `base_model.model.<module>.lora_A.weight`, and the scalar head, which PEFT
 * calls a module to save, `base_model.model.score.weight`.
 */
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { makeLayout, viewOf } from "../engine/layout.js";
import { configError, dataError, TroupeError } from "../shared/errors.js";
import { SafetensorsFile, writeSafetensors } from "../shared/safetensors.js";
import { isJsonObject, type Json } from "../shared/strict-json.js";
import { adapterName, addProduct, isConv1d, trainedLayout, withLora, type LoraSettings } from "./lora.js";
import { fileInFolder, pickleRefused, readFolderJson } from "./model-files.js";
import { layoutOf, type ModelSpec } from "./model-spec.js";

const PREFIX = "base_model.model.";
const CONFIG_FILE = "adapter_config.json";
const WEIGHTS_FILE = "adapter_model.safetensors";
/** What PEFT wrote before safetensors. */
const PICKLE_FILE = "adapter_model.bin";
/** Metadata key under which an adapter's weights carry their own adapter_config.json. */
export const ADAPTER_CONFIG_KEY = "troupe_adapter_config";

/** The tensors of an adapter, by our names. */
function adapterTensors(spec: ModelSpec): string[] {
  const modules = spec.lora?.modules ?? [];
  const adapters = modules.flatMap((module) => [adapterName(module, "A"), adapterName(module, "B")]);
  return spec.head === "scalar" ? [...adapters, "score.weight"] : adapters;
}

/** What `PeftConfig.from_pretrained` reads. @param basePath where the adapted model is; null when it has no path */
function adapterConfig(spec: ModelSpec, basePath: string | null): Record<string, unknown> {
  const { rank, alpha, modules } = spec.lora!;
  return {
    peft_type: "LORA",
    task_type: spec.head === "scalar" ? "SEQ_CLS" : "CAUSAL_LM",
    base_model_name_or_path: basePath,
    r: rank,
    lora_alpha: alpha,
    lora_dropout: 0,
    target_modules: modules,
    fan_in_fan_out: isConv1d(spec),
    bias: "none",
    modules_to_save: spec.head === "scalar" ? ["score"] : null,
    inference_mode: true,
    use_rslora: false,
    use_dora: false,
  };
}

/**
 * Writes adapter_model.safetensors.
 * @param trained values in `trainedLayout(spec)` order
 * @throws {TroupeError} CONFIG when the base is trained too: an adapter alone would not tell the model then
 */
export async function writeAdapterFile(path: string, spec: ModelSpec, trained: Float32Array): Promise<void> {
  if (spec.lora?.isBaseFrozen !== true) {
    throw configError("an adapter can be saved alone only with model.lora.onlyOptimizeLora: true");
  }
  const layout = trainedLayout(spec);
  const tensors = makeLayout(
    Object.fromEntries(adapterTensors(spec).map((name) => [PREFIX + name, layout.byName.get(name)!.shape])),
  );
  const values = new Float32Array(tensors.size);
  for (const { name, offset } of tensors.entries) {
    values.set(viewOf(layout, trained, name.slice(PREFIX.length)), offset);
  }
  const config = JSON.stringify(adapterConfig(spec, null));
  await writeSafetensors(path, tensors.entries, values, { format: "pt", [ADAPTER_CONFIG_KEY]: config });
}

/** Writes a folder that `PeftModel.from_pretrained` loads. */
export async function saveAdapterDir(
  dir: string,
  spec: ModelSpec,
  trained: Float32Array,
  basePath: string | null,
): Promise<void> {
  await mkdir(dir, { recursive: true });
  await writeAdapterFile(join(dir, WEIGHTS_FILE), spec, trained);
  await writeFile(join(dir, CONFIG_FILE), JSON.stringify(adapterConfig(spec, basePath), null, 2) + "\n");
}

/** Each must have the value given. */
const REQUIRED: Readonly<Record<string, Json>> = { peft_type: "LORA", bias: "none" };

/**
 * Fields that a finished adapter's product does not depend on, or that are read where it is. Any other one must be off:
 * PEFT gains variants that compute something else faster than a list of them could keep up with.
 */
const KNOWN: ReadonlySet<string> = new Set([
  ...Object.keys(REQUIRED),
  ...["r", "lora_alpha", "target_modules", "modules_to_save", "fan_in_fan_out", "init_lora_weights"],
  ...["task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode"],
  ...["lora_dropout", "megatron_core", "qalora_group_size"],
  ...["loftq_config", "eva_config", "corda_config", "lora_ga_config"], // of starts, see BASE_KEEPING_STARTS
]);

/** Starts that leave the base as it is. PiSSA, OLoRA, CorDA, LoftQ and LoRA-GA change its weights when PEFT loads one. */
const BASE_KEEPING_STARTS: readonly Json[] = [true, false, "gaussian", "eva", "orthogonal"];

/**
 * Adds a PEFT adapter into a model.
 * @param values flat, in `layoutOf(spec)` order; changed in place, and only when the whole adapter fits
 * @throws {TroupeError} DATA naming the file and what does not fit
 */
export async function mergeAdapterDir(dir: string, spec: ModelSpec, values: Float32Array): Promise<void> {
  const adapted = adaptedSpec(dir, spec, await readAdapterConfig(dir, spec));
  const path = await fileInFolder(dir, WEIGHTS_FILE);
  if (path === null) throw await noAdapterWeights(dir);
  const trained = await readAdapterFile(path, adapted);
  const base = layoutOf(spec);
  const layout = trainedLayout(adapted);
  const found = (name: string) => viewOf(layout, trained, name);
  for (const module of adapted.lora!.modules) {
    const part = (which: "A" | "B") => found(adapterName(module, which));
    addProduct(adapted, module, viewOf(base, values, `${module}.weight`), { a: part("A"), b: part("B") });
  }
  if (spec.head === "scalar") viewOf(base, values, "score.weight").set(found("score.weight"));
}

/** @throws {TroupeError} DATA when the adapter's targets or rank are none of the model */
function adaptedSpec(dir: string, spec: ModelSpec, settings: LoraSettings): ModelSpec {
  try {
    return withLora(spec, settings);
  } catch (error) {
    // It speaks of the settings of a run, which these are not.
    if (!(error instanceof TroupeError)) throw error;
    throw dataError(
      `${join(dir, CONFIG_FILE)}: the adapter does not fit this model: ${error.message.replace(/^model\.lora\./, "")}`,
      { cause: error },
    );
  }
}

/**
 * Reads adapter_model.safetensors.
 * @param spec with adapters on a frozen base
 * @returns flat, in `trainedLayout(spec)` order
 * @throws {TroupeError} DATA naming the file and the tensor that is missing, misshapen or fits nothing
 */
export async function readAdapterFile(path: string, spec: ModelSpec): Promise<Float32Array> {
  const layout = trainedLayout(spec);
  const trained = new Float32Array(layout.size);
  const found = new Set<string>();
  const file = await SafetensorsFile.open(path);
  try {
    for (const tensor of file.header.tensors) {
      const name = tensor.name.startsWith(PREFIX) ? tensor.name.slice(PREFIX.length) : tensor.name;
      const entry = layout.byName.get(name);
      if (entry === undefined) {
        throw dataError(`${path}: tensor ${tensor.name} fits no adapted module of this ${spec.family} model`);
      }
      if (entry.shape.join() !== tensor.shape.join()) {
        const [got, expected] = [tensor.shape, entry.shape].map((shape) => `[${shape.join(", ")}]`);
        throw dataError(`${path}: tensor ${tensor.name} has shape ${got}, expected ${expected}`);
      }
      await file.readInto(tensor, viewOf(layout, trained, name));
      found.add(name);
    }
  } finally {
    await file.close();
  }
  const missing = adapterTensors(spec).find((name) => !found.has(name));
  if (missing !== undefined) throw dataError(`${path}: tensor ${PREFIX}${missing} is missing`);
  return trained;
}

async function noAdapterWeights(dir: string): Promise<Error> {
  if ((await fileInFolder(dir, PICKLE_FILE)) === null) return dataError(`${dir}: has no ${WEIGHTS_FILE}`);
  return pickleRefused(dir, PICKLE_FILE, "AutoPeftModel.from_pretrained", "peft");
}

async function readAdapterConfig(dir: string, spec: ModelSpec) {
  const path = join(dir, CONFIG_FILE);
  const config = await readFolderJson(dir, CONFIG_FILE);
  if (!isJsonObject(config)) throw dataError(`${path}: expected the JSON object of a PEFT adapter`);
  for (const [field, expected] of Object.entries(REQUIRED)) {
    const got = config[field] ?? expected;
    if (got !== expected)
      throw dataError(`${path}: ${field} must be ${String(expected)}, got ${JSON.stringify(got)}`);
  }
  for (const [field, got] of Object.entries(config)) {
    if (KNOWN.has(field) || isOff(got)) continue;
    throw dataError(
      `${path}: ${field} must be left out, false or empty: only W + (lora_alpha / r)·B·A can be merged, got ${JSON.stringify(got)}`,
    );
  }
  const start = config.init_lora_weights ?? true;
  if (!BASE_KEEPING_STARTS.includes(start)) {
    throw dataError(
      `${path}: init_lora_weights must be one of ${BASE_KEEPING_STARTS.join(", ")}, which leave the base as it is, got ${JSON.stringify(start)}; ` +
        "PEFT's save_pretrained with path_initial_model_for_weight_conversion writes such an adapter as a plain one",
    );
  }
  const isTransposed = config.fan_in_fan_out ?? false;
  if (isTransposed !== isConv1d(spec)) {
    throw dataError(
      `${path}: fan_in_fan_out must be ${isConv1d(spec)} for a ${spec.family} model, got ${JSON.stringify(isTransposed)}`,
    );
  }
  const { r, lora_alpha: alpha, target_modules: targets } = config;
  if (typeof r !== "number" || !Number.isInteger(r) || r < 1)
    throw dataError(`${path}: r must be a whole number from 1, got ${JSON.stringify(r)}`);
  if (typeof alpha !== "number" || !(alpha > 0))
    throw dataError(`${path}: lora_alpha must be above 0, got ${JSON.stringify(alpha)}`);
  const targetModules = typeof targets === "string" ? [targets] : targets;
  if (!Array.isArray(targetModules) || !targetModules.every((target) => typeof target === "string"))
    throw dataError(`${path}: target_modules must be a list of module names, got ${JSON.stringify(targets)}`);
  return { rank: r, alpha, targetModules, onlyOptimizeLora: true };
}

/** `null`, `false`, and an empty list or object say that a feature is not used. */
function isOff(value: Json): boolean {
  if (value === null || value === false) return true;
  return typeof value === "object" && Object.keys(value).length === 0;
}
