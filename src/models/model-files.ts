import { readdir, readFile, realpath, stat } from "node:fs/promises";
import { basename, dirname, join, sep } from "node:path";
import { dataError } from "../shared/errors.js";
import { isJsonObject, parseStrictJson, type Json } from "../shared/strict-json.js";

/** Cap on config.json and index files, bytes: real ones are below 1 MB. */
const MAX_JSON_BYTES = 16 * 1024 * 1024;

/**
 * The real path of a file of a model folder. A symbolic link may not lead out of the folder, except into the blob
 * store of the Hugging Face cache that the folder is a snapshot of.
 * @returns null when there is no such file
 */
export async function fileInFolder(folder: string, name: string): Promise<string | null> {
  if (
    name !== basename(name) ||
    name === "." ||
    name === ".." ||
    name.includes("\\") ||
    name.includes("\0")
  ) {
    throw dataError(`${folder}: file name ${JSON.stringify(name)} must name a file in this folder`);
  }
  let real: string;
  try {
    real = await realpath(join(folder, name));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return null;
    throw dataError(`${join(folder, name)}: cannot be read`, { cause: error });
  }
  const home = await realpath(folder);
  const snapshots = dirname(home);
  const blobs = basename(snapshots) === "snapshots" ? join(dirname(snapshots), "blobs") : home;
  if (!real.startsWith(home + sep) && !real.startsWith(blobs + sep)) {
    throw dataError(`${join(folder, name)}: leads out of its folder, to ${real}`);
  }
  return real;
}

/** Parses a JSON file of a model folder, or null when it does not exist. */
export async function readFolderJson(folder: string, name: string): Promise<Json | null> {
  const path = await fileInFolder(folder, name);
  if (path === null) return null;
  const info = await stat(path);
  if (!info.isFile() || info.size > MAX_JSON_BYTES) {
    throw dataError(
      `${join(folder, name)}: expected a file of at most ${MAX_JSON_BYTES} bytes, got ${info.size}`,
    );
  }
  return parseStrictJson(await readFile(path, "utf8"), join(folder, name));
}

/** The safetensors files of a model folder: one, or the shards that its index names. */
export async function weightFiles(folder: string): Promise<string[]> {
  const single = await fileInFolder(folder, "model.safetensors");
  if (single !== null) return [single];
  const indexName = "model.safetensors.index.json";
  const index = await readFolderJson(folder, indexName);
  if (index === null) throw await noWeights(folder);
  const map = isJsonObject(index) ? index.weight_map : undefined;
  if (!isJsonObject(map) || Object.keys(map).length === 0) {
    throw dataError(`${join(folder, indexName)}: weight_map must map tensor names to file names`);
  }
  const paths: string[] = [];
  for (const name of new Set(Object.values(map))) {
    if (typeof name !== "string" || !name.endsWith(".safetensors")) {
      throw dataError(
        `${join(folder, indexName)}: weight_map must name .safetensors files, got ${JSON.stringify(name)}`,
      );
    }
    const path = await fileInFolder(folder, name);
    if (path === null) throw dataError(`${join(folder, indexName)}: shard ${name} does not exist`);
    paths.push(path);
  }
  return paths.sort();
}

/** transformers' class that config.json names; null when it names none. @throws {TroupeError} DATA when it cannot be read */
export async function architectureIn(folder: string): Promise<string | null> {
  const config = await readFolderJson(folder, "config.json");
  const architectures = isJsonObject(config) ? config.architectures : undefined;
  const [name] = Array.isArray(architectures) ? architectures : [];
  return typeof name === "string" ? name : null;
}

async function noWeights(folder: string): Promise<Error> {
  const names = await readdir(folder).catch((cause: unknown) => {
    throw dataError(`${folder}: not a readable folder`, { cause });
  });
  const pickle = names.find((name) => /\.(bin|pt|pth|ckpt|pkl)$/.test(name));
  if (pickle === undefined) return dataError(`${folder}: has no model.safetensors`);
  const name = await architectureIn(folder);
  // The class that the weights were made with: another one would drop a score head, or add one.
  const model = name !== null && /^\w+$/.test(name) ? name : "AutoModelForCausalLM";
  return pickleRefused(folder, pickle, `${model}.from_pretrained`, "transformers");
}

/** @param load the Python function that reads the folder */
export function pickleRefused(folder: string, file: string, load: string, library: string): Error {
  return dataError(
    `${folder}: ${file} is a pickle, which can run code when it is read, so it is never opened. Convert it with ` +
      `Python's ${library}: ${load}(${JSON.stringify(folder)}).save_pretrained("converted", safe_serialization=True)`,
  );
}
