/**
 * Sequences are padded to a multiple of a bucket, so that a handful of compiled programs serves every length. The
 * bucket follows from the sequence's own length only: which program runs it, and so the bits of its numbers, do not
 * depend on what else is in the batch.
 */
export function bucketOf(tokens: number, bucket: number, limit: number): number {
  return Math.min(Math.ceil(tokens / bucket) * bucket, limit);
}

/** Indices of `lengths`, in order, grouped by bucket and cut into groups of at most `rowsOf(bucket)`. */
export function groupByBucket(
  lengths: readonly number[],
  options: { readonly bucket: number; readonly limit: number; readonly rowsOf: (tokens: number) => number },
): { readonly tokens: number; readonly members: readonly number[] }[] {
  const byTokens = new Map<number, number[]>();
  lengths.forEach((length, index) => {
    const tokens = bucketOf(length, options.bucket, options.limit);
    byTokens.set(tokens, [...(byTokens.get(tokens) ?? []), index]);
  });
  return [...byTokens].flatMap(([tokens, indices]) => {
    const rows = options.rowsOf(tokens);
    return Array.from({ length: Math.ceil(indices.length / rows) }, (_, group) => ({
      tokens,
      members: indices.slice(group * rows, (group + 1) * rows),
    }));
  });
}
