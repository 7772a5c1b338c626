import { BYTE_CHARACTERS, toByteCharacters, WORD_PATTERN } from "./byte-level.js";
import { PairHeap } from "./pair-heap.js";

export const EOS_TOKEN = "<|endoftext|>";
export const PAD_TOKEN = "<|pad|>";
export const SPECIAL_TOKENS: readonly string[] = [EOS_TOKEN, PAD_TOKEN];

export interface BpeVocabulary {
  /** Tokens by id: special tokens, the 256 bytes, then one token per merge. */
  readonly tokens: readonly string[];
  /** Pairs in the order they were learned, which is the order they are applied in. */
  readonly merges: readonly (readonly [string, string])[];
}

export interface BpeOptions {
  /** Largest number of tokens, special tokens and bytes included; at least 258. */
  readonly vocabularySize: number;
  /** Pairs seen less often are not merged. @default 2 */
  readonly minFrequency?: number;
}

interface Word {
  symbols: number[];
  readonly count: number;
}

/** Symbols fit 26 bits each, so a pair is one exact double. */
const PAIR_BASE = 2 ** 26;
const keyOf = (left: number, right: number): number => left * PAIR_BASE + right;

/** Counts words over all texts; the trainer's only look at them. */
export class WordCounts {
  readonly counts = new Map<string, number>();

  add(text: string): void {
    for (const word of text.match(WORD_PATTERN) ?? [])
      this.counts.set(word, (this.counts.get(word) ?? 0) + 1);
  }
}

/**
 * Learns a byte-level BPE vocabulary: start from bytes; again and again join the most frequent neighbouring pair
 * (ties: the smaller ids) inside words, until the vocabulary is full or no pair is frequent enough.
 *
 * Pair counts are kept up to date at the words a merge touches, so a merge costs what it changes and not a pass over
 * the data. The result depends on the word counts alone, not on the order of texts.
 * @see Sennrich et al. 2016, arXiv:1508.07909; same merges as Hugging Face `tokenizers` BpeTrainer
 */
export function trainBpe(wordCounts: ReadonlyMap<string, number>, options: BpeOptions): BpeVocabulary {
  const { vocabularySize, minFrequency = 2 } = options;
  // Bytes get ids in the order of their characters, as the reference trainer gives them.
  const tokens = [...SPECIAL_TOKENS, ...[...BYTE_CHARACTERS].sort()];
  const idOfCharacter = new Map(tokens.map((token, id) => [token, id]));
  const words = [...wordCounts].map(([word, count]): Word => ({
    symbols: Array.from(toByteCharacters(word), (character) => idOfCharacter.get(character) as number),
    count,
  }));

  const pairCounts = new Map<number, number>();
  const wordsWithPair = new Map<number, Set<number>>();
  const changed = new Set<number>();
  const addPair = (left: number, right: number, word: number, by: number): void => {
    const key = keyOf(left, right);
    pairCounts.set(key, (pairCounts.get(key) ?? 0) + by);
    changed.add(key);
    if (by < 0) return; // a word is left in the pair's set: looking at it once too often is harmless
    const holders = wordsWithPair.get(key);
    if (holders === undefined) wordsWithPair.set(key, new Set([word]));
    else holders.add(word);
  };
  const heap = new PairHeap();
  const pushChanged = (): void => {
    for (const key of changed) {
      const count = pairCounts.get(key) ?? 0;
      if (count >= minFrequency)
        heap.push({ left: Math.floor(key / PAIR_BASE), right: key % PAIR_BASE, count });
    }
    changed.clear();
  };

  words.forEach(({ symbols, count }, word) => {
    for (let i = 0; i + 1 < symbols.length; i++) addPair(symbols[i], symbols[i + 1], word, count);
  });
  pushChanged();

  const merges: [string, string][] = [];
  while (tokens.length < vocabularySize) {
    const best = heap.pop();
    if (best === undefined) break;
    const { left, right, count } = best;
    const key = keyOf(left, right);
    if (pairCounts.get(key) !== count) continue; // stale: the pair's count has changed since
    const merged = tokens.length;
    tokens.push(tokens[left] + tokens[right]);
    merges.push([tokens[left], tokens[right]]);
    for (const at of wordsWithPair.get(key) ?? []) mergeInWord(words[at], at, left, right, merged, addPair);
    pairCounts.delete(key);
    wordsWithPair.delete(key);
    changed.delete(key);
    pushChanged();
  }
  return { tokens, merges };
}

/** Replaces the pair in one word, from the left, and reports every neighbour pair that goes or comes. */
function mergeInWord(
  word: Word,
  at: number,
  left: number,
  right: number,
  merged: number,
  addPair: (left: number, right: number, word: number, by: number) => void,
): void {
  const { symbols, count } = word;
  const next: number[] = [];
  let hasMerged = false;
  for (let i = 0; i < symbols.length; i++) {
    if (symbols[i] !== left || symbols[i + 1] !== right) {
      next.push(symbols[i]);
      continue;
    }
    next.push(merged);
    hasMerged = true;
    i++;
  }
  if (!hasMerged) return;
  for (let i = 0; i + 1 < symbols.length; i++) addPair(symbols[i], symbols[i + 1], at, -count);
  for (let i = 0; i + 1 < next.length; i++) addPair(next[i], next[i + 1], at, count);
  word.symbols = next;
}
