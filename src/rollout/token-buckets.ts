/** Tokens of a scoring pass: enough for full-speed matrix products, and few enough to waste little on a short group. */
export const PASS_TOKENS = 256;

/**
 * Sequences are padded to a multiple of a bucket, so that a handful of compiled programs serves every length. The
 * bucket follows from the sequence's own length only: which program runs it, and so the bits of its numbers, do not
 * depend on what else is in the batch.
 */
export function bucketOf(tokens: number, bucket: number, limit: number): number {
  return Math.min(Math.ceil(tokens / bucket) * bucket, limit);
}

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
