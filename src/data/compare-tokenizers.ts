/** Do two tokenizers mean the same tokens by the same ids? A model that learned other ones computes nonsense, silently. */
import { readFile } from "node:fs/promises";
import { dataError } from "../shared/errors.js";
import { isJsonObject, type Json } from "../shared/strict-json.js";

/**
 * Compares every id that `ours` can write with what it is in `theirs`, which may know more.
 * @param theirs tokenizer.json of a model
 * @param ours   tokenizer.json of the run
 * @param padId  ours; it may be missing there, as what is padded is never read
 * @returns what differs first, or null
 * @throws {TroupeError} DATA naming the file that is no tokenizer
 */
export async function tokenizerDifference(
  theirs: string,
  ours: string,
  padId: number,
): Promise<string | null> {
  const [theirText, ourText] = await Promise.all([theirs, ours].map((path) => readFile(path, "utf8")));
  if (theirText === ourText) return null;
  const known = tokensById(theirText, theirs);
  const written = [...tokensById(ourText, ours)].sort(([a], [b]) => a - b);
  const first = written.find(([id, token]) => known.get(id) !== token && (known.has(id) || id !== padId));
  if (first === undefined) return null;
  const [id, token] = first;
  const there = known.has(id) ? JSON.stringify(known.get(id)) : "no token";
  return `token ${id} is ${there} in ${theirs} and ${JSON.stringify(token)} in ${ours}`;
}

/** Vocabulary and added tokens: of BPE, WordPiece and WordLevel an object of ids, of Unigram a list of [token, score]. */
function tokensById(text: string, path: string): Map<number, string> {
  let json: Json;
  try {
    json = JSON.parse(text) as Json;
  } catch (cause) {
    throw dataError(`${path} is not valid JSON; fetch or write the tokenizer again`, { cause });
  }
  const { model = null, added_tokens: added = null } = isJsonObject(json) ? json : {};
  const vocabulary = isJsonObject(model) ? model.vocab : null;
  const tokens = new Map<number, string>();
  const add = (id: Json | undefined, token: Json | undefined): void => {
    if (typeof id !== "number" || typeof token !== "string")
      throw dataError(`${path}: expected tokens with ids, got ${JSON.stringify([token, id])}`);
    tokens.set(id, token);
  };
  if (Array.isArray(vocabulary)) {
    vocabulary.forEach((entry, id) => add(id, Array.isArray(entry) ? entry[0] : undefined));
  } else if (isJsonObject(vocabulary)) {
    for (const [token, id] of Object.entries(vocabulary)) add(id, token);
  } else {
    throw dataError(`${path}: has no model.vocab; expected a tokenizer as the tokenizers library writes it`);
  }
  for (const entry of Array.isArray(added) ? added : []) {
    const { id, content } = isJsonObject(entry) ? entry : {};
    add(id, content);
  }
  return tokens;
}
