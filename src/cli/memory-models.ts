/** The models of a run as far as its memory is concerned: from the config and config.json alone. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Config } from "../config/schema.js";
import { readSpec } from "../models/checkpoint-dir.js";
import { freshGpt2Spec, type ModelSpec } from "../models/model-spec.js";

/** GPT-2's. */
const LARGE_VOCABULARY = 50_257;

/** The policy. @throws {TroupeError} DATA when `model.path` cannot be read */
export const policySpec = ({ model }: Config): Promise<ModelSpec> =>
  model.path === null ? freshSpec(model) : readSpec(model.path, "lm");

/** Of `reward.path`; null where the run trains its reward model. @throws {TroupeError} DATA when it cannot be read */
export const givenRewardSpec = ({ reward }: Config): Promise<ModelSpec | null> =>
  reward.path === null ? Promise.resolve(null) : readSpec(reward.path, "scalar");

async function freshSpec({ fresh, tokenizer }: Config["model"]): Promise<ModelSpec> {
  const { layers, hidden, heads, contextTokens } = fresh;
  const vocabularySize =
    tokenizer.type === "path"
      ? await vocabularyOf(tokenizer.path)
      : tokenizer.type === "train"
        ? tokenizer.vocabularySize
        : LARGE_VOCABULARY;
  return freshGpt2Spec({
    head: "lm",
    layers,
    hidden,
    heads,
    contextTokens,
    vocabularySize,
    eosTokenId: 0,
    padTokenId: 1,
  });
}

/** Largest token id + 1, from tokenizer.json alone; GPT-2's size when that cannot be read: better too much than too little. */
async function vocabularyOf(folder: string): Promise<number> {
  try {
    const { model, added_tokens: added = [] } = JSON.parse(
      await readFile(join(folder, "tokenizer.json"), "utf8"),
    ) as TokenizerFile;
    // A Unigram vocabulary is a list, the others are maps to ids.
    const ids = Array.isArray(model.vocab)
      ? [model.vocab.length - 1]
      : Object.values(model.vocab as Readonly<Record<string, number>>);
    const largest = [...ids, ...added.map(({ id }) => id)].reduce((most, id) => Math.max(most, id), -1);
    return largest >= 0 ? largest + 1 : LARGE_VOCABULARY;
  } catch {
    return LARGE_VOCABULARY; // what is wrong with it, the run itself says
  }
}

/** The parts of tokenizer.json that are read here. */
interface TokenizerFile {
  readonly model: { readonly vocab: Readonly<Record<string, number>> | readonly unknown[] };
  readonly added_tokens?: readonly { readonly id: number }[];
}
