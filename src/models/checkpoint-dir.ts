import { copyFile, mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Layout } from "../engine/layout.js";
import { dataError, numericError, TroupeError } from "../shared/errors.js";
import { SafetensorsFile, writeSafetensors, type TensorInfo } from "../shared/safetensors.js";
import { familyOf } from "./families.js";
import { fileInFolder, readFolderJson, weightFiles } from "./model-files.js";
import {
  initTensor,
  layoutOf,
  parseModelConfig,
  tensorPlans,
  toHfConfig,
  type Head,
  type ModelSpec,
} from "./model-spec.js";
import { TOKENIZER_FILES } from "../shared/tokenizer-file-names.js";

export interface LoadOptions {
  /** Seed for a scalar head that the checkpoint lacks (a reward model started from a language model). */
  readonly initMissing?: number;
  /** Where the parameters go, `layoutOf(spec).size` elements. @default memory of their own */
  readonly into?: Float32Array;
}

export interface LoadedWeights {
  /** Flat parameters in `layoutOf(spec)` order. */
  readonly values: Float32Array;
  /** What a reader should know: tensors left out or freshly initialised. */
  readonly warnings: readonly string[];
}

export interface LoadedModel extends LoadedWeights {
  readonly spec: ModelSpec;
}

/**
 * Loads a Hugging Face model folder: config.json and model.safetensors or its shards.
 * @throws {TroupeError} DATA naming the file and the field or tensor, what was expected and what came
 */
export async function loadModelDir(dir: string, head: Head, options: LoadOptions = {}): Promise<LoadedModel> {
  const spec = await readSpec(dir, head);
  return { spec, ...(await loadWeights(await weightFiles(dir), spec, options)) };
}

/** Reads the config.json of a model folder. @throws {TroupeError} DATA naming folder and field */
export async function readSpec(dir: string, head: Head): Promise<ModelSpec> {
  const config = await readFolderJson(dir, "config.json");
  if (config === null) throw dataError(`${dir}: has no config.json; expected a Hugging Face model folder`);
  try {
    return parseModelConfig(config, head);
  } catch (error) {
    if (!(error instanceof TroupeError)) throw error;
    throw new TroupeError(error.code, `${dir}: ${error.message}`, { cause: error.cause });
  }
}

/**
 * Reads the parameters of `spec` from safetensors files. Names may lack the backbone's prefix. A tied language-model
 * head, the other kind of head, and buffers are left out; any other missing, extra or misshapen tensor is an error.
 */
export function loadWeights(
  paths: readonly string[],
  spec: ModelSpec,
  options: LoadOptions = {},
): Promise<LoadedWeights> {
  return withSources(paths, spec, options, async (sources, warnings) => {
    const layout = layoutOf(spec);
    // Only now: every tensor is backed by bytes of a file, so the memory is no more than the files account for.
    const values = options.into ?? new Float32Array(layout.size);
    for (const { name, offset, size } of layout.entries) {
      const target = values.subarray(offset, offset + size);
      const source = sources.get(name);
      if (source !== undefined) {
        await source.file.readInto(source.tensor, target);
      } else {
        initTensor(name, tensorPlans(spec)[name].init, target, options.initMissing!);
        warnings.push(`${name} is not in the checkpoint: initialised from seed ${options.initMissing}`);
      }
    }
    return { values, warnings };
  });
}

/**
 * Reads every weight of `spec` once, one tensor at a time, as `loadWeights` would: what it would refuse is refused
 * here, without the memory of the whole model.
 * @param into float32 file to write the tensors to that the files hold; null only checks them
 * @returns what a reader should know, as in `LoadedWeights`
 */
export function checkWeights(
  paths: readonly string[],
  spec: ModelSpec,
  into: string | null,
  options: LoadOptions = {},
): Promise<readonly string[]> {
  return withSources(paths, spec, options, async (sources, warnings) => {
    const held = layoutOf(spec).entries.filter(({ name }) => sources.has(name));
    const tensors = (async function* () {
      for (const { name, size } of held) {
        const { file, tensor } = sources.get(name)!;
        const values = new Float32Array(size);
        await file.readInto(tensor, values);
        yield values;
      }
    })();
    if (into !== null) await writeSafetensors(into, held, tensors);
    else for await (const _checked of tensors);
    return warnings;
  });
}

type Sources = ReadonlyMap<string, { readonly file: SafetensorsFile; readonly tensor: TensorInfo }>;

/** Finds every tensor of the layout in the files, which stay open for `use`. @throws {TroupeError} DATA */
async function withSources<T>(
  paths: readonly string[],
  spec: ModelSpec,
  options: LoadOptions,
  use: (sources: Sources, warnings: string[]) => Promise<T>,
): Promise<T> {
  const layout = layoutOf(spec);
  const warnings: string[] = [];
  const files: SafetensorsFile[] = [];
  try {
    const sources = new Map<string, { readonly file: SafetensorsFile; readonly tensor: TensorInfo }>();
    for (const path of paths) {
      const file = await SafetensorsFile.open(path);
      files.push(file);
      for (const tensor of file.header.tensors) {
        const name = parameterName(tensor, spec, layout, path, warnings);
        if (name === null) continue;
        const earlier = sources.get(name);
        if (earlier !== undefined) {
          throw dataError(`${path}: tensor ${tensor.name} was already read from ${earlier.file.path}`);
        }
        sources.set(name, { file, tensor });
      }
    }
    const canInit = (name: string): boolean => name === "score.weight" && options.initMissing !== undefined;
    const missing = layout.entries.find(({ name }) => !sources.has(name) && !canInit(name));
    if (missing !== undefined) {
      const shape = missing.shape.join(", ");
      const hint =
        missing.name === "score.weight"
          ? "; without it this is a language model, not a reward model: train one with the reward stage"
          : "";
      throw dataError(
        `${paths.join(", ")}: tensor ${missing.name} is missing; expected shape [${shape}]${hint}`,
      );
    }
    return await use(sources, warnings);
  } finally {
    for (const file of files) await file.close();
  }
}

/** The layout's name for a tensor of a file, after checking its shape; null when the model does not need it. */
function parameterName(
  tensor: TensorInfo,
  spec: ModelSpec,
  layout: Layout,
  path: string,
  warnings: string[],
): string | null {
  const family = familyOf(spec);
  const entry = layout.byName.get(tensor.name) ?? layout.byName.get(family.prefix + tensor.name);
  if (entry !== undefined) {
    if (tensor.shape.join() !== entry.shape.join()) {
      throw dataError(
        `${path}: tensor ${tensor.name} has shape [${tensor.shape.join(", ")}], expected [${entry.shape.join(", ")}] as config.json says`,
      );
    }
    return entry.name;
  }
  if (family.ignoredTensors.test(tensor.name)) return null;
  if (tensor.name === "lm_head.weight" || tensor.name === "score.weight") {
    const isTiedHead = tensor.name === "lm_head.weight" && spec.tieWordEmbeddings;
    if (!isTiedHead) warnings.push(`${tensor.name} left out: the model is loaded with a ${spec.head} head`);
    return null;
  }
  throw dataError(
    `${path}: tensor ${tensor.name} does not belong to a ${spec.family} model with a ${spec.head} head`,
  );
}

export interface SaveOptions {
  /** Folder whose tokenizer files are copied. @default none are */
  readonly tokenizerDir?: string;
  /** Content of config.json. @default that of the spec */
  readonly hfConfig?: Readonly<Record<string, unknown>>;
  /** Content of generation_config.json. @default the token ids of config.json */
  readonly generation?: Readonly<Record<string, unknown>>;
}

/**
 * Writes a model folder that transformers loads unchanged: config.json, generation_config.json, model.safetensors,
 * and the tokenizer's files when a folder with them is given.
 * @param values flat parameters in `layoutOf(spec)` order
 * @throws {TroupeError} NUMERIC naming the tensor when a value is NaN or infinite
 */
export async function saveModelDir(
  dir: string,
  spec: ModelSpec,
  values: Float32Array,
  options: SaveOptions = {},
): Promise<void> {
  const { entries } = layoutOf(spec);
  for (const { name, offset, size } of entries) {
    for (let i = offset; i < offset + size; i++) {
      if (!Number.isFinite(values[i]))
        throw numericError(`${dir}: tensor ${name} element ${i - offset} is ${values[i]}`);
    }
  }
  await mkdir(dir, { recursive: true });
  const { hfConfig = toHfConfig(spec) } = options;
  const { bos_token_id, eos_token_id, pad_token_id } = hfConfig;
  const ids = { bos_token_id, eos_token_id, pad_token_id };
  await writeJson(join(dir, "config.json"), hfConfig);
  await writeJson(
    join(dir, "generation_config.json"),
    options.generation ?? { _from_model_config: true, ...ids },
  );
  await writeSafetensors(join(dir, "model.safetensors"), entries, values);
  if (options.tokenizerDir !== undefined) await copyTokenizerFiles(options.tokenizerDir, dir);
}

/** The tokenizer's files that a folder has. */
export async function copyTokenizerFiles(from: string, to: string): Promise<void> {
  for (const name of TOKENIZER_FILES) {
    const path = await fileInFolder(from, name);
    if (path !== null && path !== join(to, name)) await copyFile(path, join(to, name));
  }
}

async function writeJson(path: string, value: unknown): Promise<void> {
  await writeFile(path, JSON.stringify(value, null, 2) + "\n");
}
