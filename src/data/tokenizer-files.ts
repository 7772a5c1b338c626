/**
 * Writes a tokenizer as a Hugging Face directory: `tokenizer.json` (read by `tokenizers`, transformers and
 * transformers.js), `tokenizer_config.json` and `special_tokens_map.json`.
 */
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { dataError } from "../shared/errors.js";
import { toByteCharacters, WORD_PATTERN } from "./byte-level.js";
import { EOS_TOKEN, PAD_TOKEN, type BpeVocabulary } from "./bpe-trainer.js";

interface SpecialNames {
  readonly eos: string;
  readonly pad: string;
  readonly unk?: string;
}

const BYTE_LEVEL = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true };

const idsByToken = (tokens: readonly string[]): Record<string, number> =>
  Object.fromEntries(tokens.map((token, id) => [token, id]));

async function writeDirectory(
  directory: string,
  model: Readonly<Record<string, unknown>>,
  tokens: readonly string[],
  names: SpecialNames,
): Promise<void> {
  const specials = [names.eos, names.pad, ...(names.unk === undefined ? [] : [names.unk])];
  const added = specials.map((content) => ({
    id: tokens.indexOf(content),
    content,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
    special: true,
  }));
  const tokenizer = {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: added,
    normalizer: null,
    pre_tokenizer: BYTE_LEVEL,
    post_processor: null,
    decoder: BYTE_LEVEL,
    model,
  };
  const special = {
    bos_token: names.eos,
    eos_token: names.eos,
    pad_token: names.pad,
    ...(names.unk === undefined ? {} : { unk_token: names.unk }),
  };
  const config = {
    tokenizer_class: "PreTrainedTokenizerFast",
    ...special,
    clean_up_tokenization_spaces: false,
    add_prefix_space: false,
    padding_side: "right",
  };
  await mkdir(directory, { recursive: true });
  const write = (name: string, value: unknown) =>
    writeFile(join(directory, name), JSON.stringify(value, null, 2) + "\n");
  await write("tokenizer.json", tokenizer);
  await write("tokenizer_config.json", config);
  await write("special_tokens_map.json", special);
}

/** Writes a trained byte-level BPE. eos is `<|endoftext|>`, pad the distinct `<|pad|>`; no unknown token is needed. */
export function writeBpeTokenizer(directory: string, vocabulary: BpeVocabulary): Promise<void> {
  const model = {
    type: "BPE",
    dropout: null,
    unk_token: null,
    continuing_subword_prefix: null,
    end_of_word_suffix: null,
    fuse_unk: false,
    byte_fallback: false,
    ignore_merges: false,
    vocab: idsByToken(vocabulary.tokens),
    merges: vocabulary.merges,
  };
  return writeDirectory(directory, model, vocabulary.tokens, { eos: EOS_TOKEN, pad: PAD_TOKEN });
}

/**
 * Writes a closed-vocabulary tokenizer with one token per word, for small made-up worlds. Words are cut as GPT-2 cuts
 * them (`" cat"` with its space, `","`, `"."`), so decoding gives back readable text exactly; others become `<unk>`.
 *
 *   ids: 0 `<eos>`, 1 `<pad>`, 2 `<unk>`, then the words, sorted
 *
 * @param texts anything whose words make up the vocabulary
 * @returns the tokens by id
 * @throws {TroupeError} DATA when there are no words
 */
export async function writeWordTokenizer(
  directory: string,
  texts: Iterable<string>,
): Promise<readonly string[]> {
  const words = new Set<string>();
  for (const text of texts)
    for (const word of text.match(WORD_PATTERN) ?? []) words.add(toByteCharacters(word));
  if (words.size === 0) throw dataError(`no words to write a tokenizer from for ${directory}`);
  const names = { eos: "<eos>", pad: "<pad>", unk: "<unk>" };
  const tokens = [names.eos, names.pad, names.unk, ...[...words].sort()];
  await writeDirectory(
    directory,
    { type: "WordLevel", vocab: idsByToken(tokens), unk_token: names.unk },
    tokens,
    names,
  );
  return tokens;
}
