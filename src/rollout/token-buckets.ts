/** Tokens of a scoring pass: enough for full-speed matrix products, and few enough to waste little on a short group. */
export const PASS_TOKENS = 256;

/** Lengths that programs are compiled for, whatever the longest is. */
const MOST_LENGTHS = 8;
/** Tokens between two of them at least. */
const LEAST_STEP = 16;

/**
 * Tokens from one bucket to the next: sequences of up to `longest` tokens get one of at most eight lengths.
 * @param least smaller steps would save too little to be worth their programs
 */
export function bucketStep(longest: number, least: number): number {
  return Math.max(least, LEAST_STEP * Math.ceil(longest / MOST_LENGTHS / LEAST_STEP));
}

/**
 * Sequences are padded to a multiple of a bucket, so that a handful of compiled programs serves every length. The
 * bucket follows from the sequence's own length only: which program runs it, and so the bits of its numbers, do not
 * depend on what else is in the batch.
 */
export function bucketOf(tokens: number, bucket: number, limit: number): number {
  return Math.min(Math.ceil(tokens / bucket) * bucket, limit);
}

/** Sequences to be scored are padded to a multiple of so many tokens. */
export const sequenceStep = (longest: number): number => bucketStep(longest, 32);
/** Prompts that are read into a cache of `slotTokens` a slot: about half of them are the answer's. */
export const promptStep = (slotTokens: number): number => bucketStep(slotTokens / 2, 16);
/** Prompts that are read into it together, unless told otherwise. */
export const PREFILL_ROWS = 4;
/** The positions read of a row are rounded up to so many parts of it. */
const LISTED_PARTS = 2;

/** Positions read of a row of `tokens` where an answer has `count`. */
export const listedOf = (count: number, tokens: number): number =>
  Math.ceil((Math.ceil((count * LISTED_PARTS) / tokens) * tokens) / LISTED_PARTS);

/** What a scoring program is compiled for. */
export interface RowShape {
  /** Positions of a row, padding included. */
  readonly tokens: number;
  /** Positions of a row that are read. */
  readonly listed: number;
}

/** Rows of one pass. */
export interface RowGroup {
  readonly shape: RowShape;
  readonly members: readonly number[];
}

/** Indices of `shapes`, in order, grouped by shape and cut into groups of at most `rowsOf(tokens)`. */
export function groupByShape(shapes: readonly RowShape[], rowsOf: (tokens: number) => number): RowGroup[] {
  const byShape = new Map<string, { shape: RowShape; indices: number[] }>();
  shapes.forEach((shape, index) => {
    const key = `${shape.tokens}/${shape.listed}`;
    const group = byShape.get(key);
    if (group === undefined) byShape.set(key, { shape, indices: [index] });
    else group.indices.push(index);
  });
  return [...byShape.values()].flatMap(({ shape, indices }) => {
    const rows = rowsOf(shape.tokens);
    return Array.from({ length: Math.ceil(indices.length / rows) }, (_, group) => ({
      shape,
      members: indices.slice(group * rows, (group + 1) * rows),
    }));
  });
}

/** Rows of a scoring pass over rows of `tokens`: one or an even number. */
export function rowsOfPass(tokens: number, passTokens: number): number {
  const rows = Math.floor(passTokens / tokens);
  return rows <= 1 ? 1 : rows - (rows % 2);
}

/**
 * The passes that sequences of up to `tokens`, with answers of up to `answer`, are scored in: one for each length of a
 * row, with the numbers of positions that may be read of it.
 */
export function scoringRows(
  tokens: number,
  answer: number,
): { readonly rows: number; readonly tokens: number; readonly listed: readonly number[] }[] {
  const step = sequenceStep(tokens);
  return Array.from({ length: Math.ceil(tokens / step) }, (_, i) => {
    const length = Math.min((i + 1) * step, tokens);
    const parts = Math.ceil((Math.min(answer, length) * LISTED_PARTS) / length);
    const listed = Array.from({ length: parts }, (_, part) =>
      listedOf(((part + 1) * length) / LISTED_PARTS, length),
    );
    return { rows: rowsOfPass(length, PASS_TOKENS), tokens: length, listed };
  });
}
