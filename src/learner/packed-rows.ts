/**
 * Rows of a micro-shard as the arrays of its program runs.
 *
 * Every run has `ids` and `starts`, int32 `[R, L]`: tokens of several sequences end to end (see ./packing), and for each
 * the column where its own sequence starts. What a loss needs is listed token by token, N entries: `at` is the flat
 * index in `[R·L]` of the position that predicts the token. For a sequence that starts at column s of row r, its token
 * t ≥ 1 is predicted at r·L + s + t − 1; response token i of P prompt tokens is token P + i. Only counted tokens are
 * listed; N is rounded up and `mask` is 0 in what that adds.
 */
import { pairSpan, scorePosition } from "../rl/pair-span.js";
import { shapeError } from "../shared/errors.js";
import { packRuns, type PackedRun, type PackingOptions } from "./packing.js";
import { checkLengths, lengthOf, type PpoRow, type PreferencePair, type SftRow } from "./shards.js";

/** Sizes that a program over listed tokens is compiled for. */
export interface TokenShape {
  /** R */
  readonly rows: number;
  /** L, tokens of a row */
  readonly length: number;
  /** N, listed tokens */
  readonly tokens: number;
}

/** Sizes that a program over pairs is compiled for. */
export interface PairShape {
  /** R, rows of chosen answers and as many of rejected ones below them */
  readonly rows: number;
  readonly length: number;
  /** P, listed pairs */
  readonly pairs: number;
}

export interface LayOptions extends Omit<PackingOptions, "roundListed"> {
  readonly padId: number;
  readonly contextTokens: number;
}

/** Listed tokens of a run are rounded up to so many parts of its positions. */
const TOKEN_PARTS = 4;

/** Of a program over tokens. */
export function roundTokens(count: number, positions: number): number {
  const part = positions / TOKEN_PARTS;
  return Math.max(1, Math.ceil(count / part)) * part;
}

/** Of a program over pairs: a power of two. */
export const roundPairs = (count: number): number => 2 ** Math.ceil(Math.log2(Math.max(1, count)));

/** One run over sequences whose tokens are listed. */
export interface TokenRun {
  readonly shape: TokenShape;
  /** int32 `[R, L]` */
  readonly ids: Int32Array;
  /** int32 `[R, L]` */
  readonly starts: Int32Array;
  /** int32 `[N]` */
  readonly at: Int32Array;
  /** int32 `[N]`, the predicted tokens */
  readonly labels: Int32Array;
  /** float32 `[N]` */
  readonly mask: Float32Array;
  /** Per listed token without the rounding: its row among those given, and its index in that row's arrays. */
  readonly sources: readonly { readonly item: number; readonly index: number }[];
}

/** Language-model targets: tokens t ≥ 1 with `lossMask[t]` 1; a source's index is t. */
export function laySft(rows: readonly SftRow[], options: LayOptions): TokenRun[] {
  return layTokens(
    rows.map(({ ids, lossMask }) => ({
      ids,
      counted: (t) => t >= 1 && lossMask[t] === 1,
      indexOf: (t) => t,
    })),
    options,
  );
}

/**
 * Response tokens with `actionMask[i]` 1; a source's index is i.
 * @throws {TroupeError} SHAPE for misaligned rows
 */
export function layPpo(rows: readonly PpoRow[], options: LayOptions): TokenRun[] {
  rows.forEach(checkPpoRow);
  return layTokens(
    rows.map(({ promptIds, responseIds, actionMask }) => ({
      ids: Int32Array.from([...promptIds, ...responseIds]),
      counted: (t) => t >= promptIds.length && actionMask[t - promptIds.length] === 1,
      indexOf: (t) => t - promptIds.length,
    })),
    options,
  );
}

/** float32 `[N]`: an entry of some per-token array for every listed token; 0 beyond them. */
export function columnOf(run: TokenRun, arrayOf: (item: number) => ArrayLike<number>): Float32Array {
  const column = new Float32Array(run.shape.tokens);
  run.sources.forEach(({ item, index }, n) => (column[n] = arrayOf(item)[index]));
  return column;
}

interface Sequence {
  readonly ids: Int32Array;
  readonly counted: (t: number) => boolean;
  readonly indexOf: (t: number) => number;
}

const countedOf = ({ ids, counted }: Sequence): number =>
  ids.reduce((sum, _, t) => sum + (counted(t) ? 1 : 0), 0);

function layTokens(sequences: readonly Sequence[], options: LayOptions): TokenRun[] {
  const items = sequences.map((one) => ({ length: one.ids.length, listed: countedOf(one) }));
  checkLengths(
    items.map(({ length }) => length),
    options.contextTokens,
  );
  return packRuns(items, { ...options, roundListed: roundTokens }).map((run): TokenRun => {
    const grid = new Grid(run.rows, run.length, options.padId);
    const at: number[] = [];
    const labels: number[] = [];
    const sources: { item: number; index: number }[] = [];
    for (const { item, row, start } of run.places) {
      const { ids, counted, indexOf } = sequences[item];
      grid.lay(ids, row, start, ids.length);
      for (let t = 0; t < ids.length; t++) {
        if (!counted(t)) continue;
        at.push(row * run.length + start + t - 1);
        labels.push(ids[t]);
        sources.push({ item, index: indexOf(t) });
      }
    }
    const tokens = run.listed;
    const padded = (values: readonly number[]) => {
      const array = new Int32Array(tokens);
      array.set(values);
      return array;
    };
    const shape = { rows: run.rows, length: run.length, tokens };
    const mask = new Float32Array(tokens).fill(1, 0, at.length);
    return {
      shape,
      ids: grid.ids,
      starts: grid.starts,
      at: padded(at),
      labels: padded(labels),
      mask,
      sources,
    };
  });
}

/** One run over pairs: chosen answers in rows 0..R−1, their rejected ones at the same columns of rows R..2R−1. */
export interface PairRun {
  readonly shape: PairShape;
  /** int32 `[2R, L]` */
  readonly ids: Int32Array;
  /** int32 `[2R, L]` */
  readonly starts: Int32Array;
  /** int32 `[P]` flat index in `[2R·L]` where the chosen answer's score is read */
  readonly chosenAt: Int32Array;
  /** int32 `[P]` */
  readonly rejectedAt: Int32Array;
  /** float32 `[P]` 1 for a pair, 0 for rounding */
  readonly pairMask: Float32Array;
  /** float32 `[R, L]` 1 / span length inside the pairs' divergent spans */
  readonly spanWeights: Float32Array;
  /** Index of each listed pair among those given. */
  readonly items: readonly number[];
}

/**
 * Pairs, each as wide as its longer side; the shorter one is continued with the pad id, as DeepSpeed-Chat does.
 * @param endId ends a row where it first occurs after the prompt, as DeepSpeed-Chat's pad id does (so that an EOS equal
 *   to it is neither scored nor compared); null: rows end where they end
 */
export function layPairs(
  pairs: readonly PreferencePair[],
  options: LayOptions,
  endId: number | null,
): PairRun[] {
  const widths = pairs.map(lengthOf.reward);
  checkLengths(widths, options.contextTokens);
  const budgetTokens = pairBudget(options.budgetTokens);
  const items = widths.map((length) => ({ length, listed: 1 }));
  return packRuns(items, { ...options, budgetTokens, roundListed: roundPairs }).map((run) =>
    layPairRun(pairs, run, options.padId, endId),
  );
}

/** Tokens of a run's chosen answers: the rejected ones take as many. */
export const pairBudget = (budgetTokens: number): number => Math.max(1, Math.floor(budgetTokens / 2));

function layPairRun(
  pairs: readonly PreferencePair[],
  { rows, length, listed, places }: PackedRun,
  padId: number,
  endId: number | null,
): PairRun {
  const grid = new Grid(2 * rows, length, padId);
  const chosenAt = new Int32Array(listed);
  const rejectedAt = new Int32Array(listed);
  const pairMask = new Float32Array(listed).fill(1, 0, places.length);
  const spanWeights = new Float32Array(rows * length);
  places.forEach(({ item, row, start }, p) => {
    const { chosen, rejected, promptTokens } = pairs[item];
    const width = lengthOf.reward(pairs[item]);
    grid.lay(chosen, row, start, width);
    grid.lay(rejected, rows + row, start, width);
    const base = row * length + start;
    chosenAt[p] = base + scorePosition(chosen, promptTokens, endId);
    rejectedAt[p] = rows * length + base + scorePosition(rejected, promptTokens, endId);
    const span = pairSpan(chosen, rejected, width, { padId: endId ?? NO_PAD, numPaddingAtBeginning: 0 });
    spanWeights.fill(1 / (span.end - span.start), base + span.start, base + span.end);
  });
  const items = places.map(({ item }) => item);
  const shape = { rows, length, pairs: listed };
  return { shape, ids: grid.ids, starts: grid.starts, chosenAt, rejectedAt, pairMask, spanWeights, items };
}

/** No token has this id. */
const NO_PAD = -1;

/** Ids and starts of `[R, L]` positions; a position that belongs to no sequence is one of its own. */
class Grid {
  readonly ids: Int32Array;
  readonly starts: Int32Array;

  constructor(
    rows: number,
    private readonly length: number,
    padId: number,
  ) {
    this.ids = new Int32Array(rows * length).fill(padId);
    this.starts = Int32Array.from(this.ids, (_, i) => i % length);
  }

  /** @param width positions that belong to the sequence, its tokens first */
  lay(ids: Int32Array, row: number, start: number, width: number): void {
    const base = row * this.length + start;
    this.ids.set(ids, base);
    this.starts.fill(start, base, base + width);
  }
}

function checkPpoRow({ promptIds, responseIds, ...columns }: PpoRow, row: number): void {
  const { logprobs, proximalLogprobs = logprobs, values, advantages, returns, actionMask } = columns;
  for (const { length } of [logprobs, proximalLogprobs, values, advantages, returns, actionMask]) {
    if (length === responseIds.length && promptIds.length > 0) continue;
    throw shapeError(
      `ppo row ${row}: ${promptIds.length} prompt tokens (expected at least 1), ${responseIds.length} ` +
        `response tokens, ${length} entries in a per-token array`,
    );
  }
}
