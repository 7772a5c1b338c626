/**
 * What a Hugging Face folder says about generating with its model. Three files may each name tokens that end an answer,
 * and they need not agree: an instruct model's tokenizer has the end of a turn, its config.json often the end of a text,
 * its generation_config.json both. An answer ends with any of them.
 */
import { join } from "node:path";
import { dataError } from "../shared/errors.js";
import { isJsonObject, type Json } from "../shared/strict-json.js";
import { readFolderJson } from "./model-files.js";

export interface GenerationDefaults {
  /** Tokens that end an answer, each once: those given, then those of config.json, then of generation_config.json. */
  readonly eosIds: readonly number[];
  /** generation_config.json as it is; empty without one. */
  readonly fields: Readonly<Record<string, Json>>;
}

/** What holds where a folder says nothing. */
export const noGenerationDefaults = (eosIds: readonly number[]): GenerationDefaults => ({
  eosIds,
  fields: {},
});

/**
 * @param eosIds those of the tokenizer
 * @throws {TroupeError} DATA naming the file when `eosIds` of a file are no token ids of the model
 */
export async function readGenerationDefaults(
  folder: string,
  eosIds: readonly number[],
): Promise<GenerationDefaults> {
  const [config, fields] = await Promise.all(
    ["config.json", "generation_config.json"].map((name) => objectIn(folder, name)),
  );
  const vocabularySize = typeof config.vocab_size === "number" ? config.vocab_size : Infinity;
  const named = [
    ...eosIdsOf(config, join(folder, "config.json"), vocabularySize),
    ...eosIdsOf(fields, join(folder, "generation_config.json"), vocabularySize),
  ];
  return { eosIds: [...new Set([...eosIds, ...named])], fields };
}

/**
 * generation_config.json of a model made from that of a folder.
 * @param ids of the new model's tokenizer; null where it has none
 */
export function generationConfig(
  { fields, eosIds }: GenerationDefaults,
  ids: { readonly bosId: number | null; readonly padId: number | null },
): GenerationConfig {
  return {
    ...fields,
    bos_token_id: ids.bosId,
    eos_token_id: eosIds.length > 1 ? [...eosIds] : (eosIds[0] ?? null),
    pad_token_id: ids.padId,
  };
}

export type GenerationConfig = Readonly<Record<string, Json>>;

async function objectIn(folder: string, name: string): Promise<Readonly<Record<string, Json>>> {
  const json = await readFolderJson(folder, name);
  return isJsonObject(json) ? json : {};
}

function eosIdsOf(
  { eos_token_id: value = null }: Readonly<Record<string, Json>>,
  path: string,
  vocabularySize: number,
): number[] {
  // A negative id is an old way of writing "none".
  const ids = Array.isArray(value) ? value : value === null || value === -1 ? [] : [value];
  const bad = ids.find((id) => !Number.isSafeInteger(id) || (id as number) < 0);
  if (bad !== undefined) {
    throw dataError(
      `${path}: field eos_token_id must be a token id or a list of them, got ${JSON.stringify(value)}`,
    );
  }
  const large = ids.find((id) => (id as number) >= vocabularySize);
  if (large !== undefined) {
    throw dataError(
      `${path}: field eos_token_id must be below vocab_size ${vocabularySize}, got ${JSON.stringify(large)}`,
    );
  }
  return ids as number[];
}
