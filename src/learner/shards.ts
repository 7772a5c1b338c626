/**
 * Rows of a micro-shard as padded tensors.
 *
 * Sequences are left-aligned and right-padded to T, a multiple of 16, so that a run compiles a handful of programs.
 * Index t of a `[B, T−1]` array is about the prediction of token t + 1: response token i of a row with P prompt
 * tokens is at t = P + i − 1, where the logits that predict it and the value of the state before it are. Mask 0 marks
 * prompts, pads and padding rows; everything else is 0 there.
 */
import type { PreferencePair, SftRow } from "../data/types.js";
import { pairSpan, scorePosition } from "../rl/pair-span.js";
import type { MicroShard, PpoRow, ShardRows } from "../rpc/codec/shard.js";
import { shapeError } from "../shared/errors.js";

export type { MicroShard, PpoRow, PreferencePair, SftRow, ShardRows };

/** Compiled sequence lengths are multiples of this, tokens. */
const LENGTH_STEP = 16;

/** Shape of a padded batch. */
export interface BatchShape {
  /** B, rows (pairs in the reward stage) */
  readonly rows: number;
  /** T, tokens */
  readonly length: number;
}

/**
 * T for sequences of up to `longest` tokens.
 * @throws {TroupeError} SHAPE when the model cannot hold them
 */
export function bucketLength(longest: number, contextTokens: number): number {
  if (longest > contextTokens) {
    throw shapeError(
      `a sequence has ${longest} tokens; the model holds ${contextTokens}. Lower data.maxPromptTokens or generation.maxNewTokens`,
    );
  }
  return Math.min(Math.ceil(longest / LENGTH_STEP) * LENGTH_STEP, contextTokens);
}

/** Tokens of the longest sequence; 0 for no rows. */
export function longestSequence(rows: ShardRows): number {
  switch (rows.kind) {
    case "sft":
      return Math.max(0, ...rows.rows.map((row) => row.ids.length));
    case "reward":
      return Math.max(0, ...rows.rows.flatMap((pair) => [pair.chosen.length, pair.rejected.length]));
    case "ppo":
      return Math.max(0, ...rows.rows.map((row) => row.promptIds.length + row.responseIds.length));
  }
}

/** What a row adds to the loss denominator: target tokens (sft), 1 (reward), counted response tokens (ppo). */
export function denominatorOf(rows: ShardRows): number {
  const ones = (mask: Uint8Array) => mask.reduce((sum, bit) => sum + bit, 0);
  switch (rows.kind) {
    case "sft":
      return rows.rows.reduce((sum, row) => sum + ones(row.lossMask.subarray(1)), 0);
    case "reward":
      return rows.rows.length;
    case "ppo":
      return rows.rows.reduce((sum, row) => sum + ones(row.actionMask), 0);
  }
}

/** Consecutive parts of at most `size` rows. */
export function chunksOf<T>(rows: readonly T[], size: number): T[][] {
  return Array.from({ length: Math.ceil(rows.length / size) }, (_, i) =>
    rows.slice(i * size, (i + 1) * size),
  );
}

/** ids `[B, T]` int32, mask `[B, T−1]` */
export function padSft(
  rows: readonly SftRow[],
  shape: BatchShape,
  padId: number,
): { ids: Int32Array; mask: Float32Array } {
  const width = shape.length - 1;
  const mask = new Float32Array(shape.rows * width);
  rows.forEach((row, b) => mask.set(row.lossMask.subarray(1), b * width));
  return {
    ids: padIds(
      rows.map((row) => row.ids),
      shape,
      padId,
    ),
    mask,
  };
}

/** ids `[B, T]` int32; mask and the four columns `[B, T−1]` */
export function padPpo(rows: readonly PpoRow[], shape: BatchShape, padId: number) {
  const width = shape.length - 1;
  const column = (of: (row: PpoRow) => Float32Array | Uint8Array): Float32Array => {
    const values = new Float32Array(shape.rows * width);
    rows.forEach((row, b) => {
      const entries = of(row);
      if (entries.length !== row.responseIds.length || row.promptIds.length === 0) {
        throw shapeError(
          `ppo row ${b}: ${row.promptIds.length} prompt tokens (expected at least 1), ${row.responseIds.length} ` +
            `response tokens, ${entries.length} entries in a per-token array`,
        );
      }
      values.set(entries, b * width + row.promptIds.length - 1);
    });
    return values;
  };
  const sequences = rows.map((row) => Int32Array.from([...row.promptIds, ...row.responseIds]));
  return {
    ids: padIds(sequences, shape, padId),
    mask: column((row) => row.actionMask),
    oldLogprobs: column((row) => row.logprobs),
    advantages: column((row) => row.advantages),
    oldValues: column((row) => row.values),
    returns: column((row) => row.returns),
  };
}

/**
 * Pairs as 2B rows, chosen first.
 *
 * ids `[2B, T]` int32 · ends `[2B, T]` one 1 per row, where its score is read · pairMask `[B]` · spanWeights `[B, T]`
 * 1 / span length inside the divergent span
 * @param endId ends a row where it first occurs after the prompt, as DeepSpeed-Chat's pad id does (so that an EOS equal to
 *   it is neither scored nor compared); null: rows end where they end
 */
export function padPairs(
  pairs: readonly PreferencePair[],
  shape: BatchShape,
  padId: number,
  endId: number | null,
) {
  const { rows, length } = shape;
  const ends = new Float32Array(2 * rows * length);
  const pairMask = new Float32Array(rows);
  const spanWeights = new Float32Array(rows * length);
  const chosenIds = padIds(
    pairs.map((pair) => pair.chosen),
    shape,
    padId,
  );
  const rejectedIds = padIds(
    pairs.map((pair) => pair.rejected),
    shape,
    padId,
  );
  pairs.forEach(({ chosen, rejected, promptTokens }, b) => {
    pairMask[b] = 1;
    ends[b * length + scorePosition(chosen, promptTokens, endId)] = 1;
    ends[(rows + b) * length + scorePosition(rejected, promptTokens, endId)] = 1;
    const width = Math.max(chosen.length, rejected.length);
    const { start, end } = pairSpan(chosen, rejected, width, {
      padId: endId ?? NO_PAD,
      numPaddingAtBeginning: 0,
    });
    spanWeights.fill(1 / (end - start), b * length + start, b * length + end);
  });
  const ids = new Int32Array(2 * rows * length);
  ids.set(chosenIds);
  ids.set(rejectedIds, chosenIds.length);
  return { ids, ends, pairMask, spanWeights };
}

/** No token has this id. */
const NO_PAD = -1;

function padIds(sequences: readonly Int32Array[], { rows, length }: BatchShape, padId: number): Int32Array {
  const ids = new Int32Array(rows * length).fill(padId);
  sequences.forEach((sequence, b) => ids.set(sequence, b * length));
  return ids;
}
