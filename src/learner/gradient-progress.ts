/**
 * How far a learner's gradients are computed while they are sent. Models are computed one after another, and a vector
 * holds them in that order: its beginning is final before its end is.
 */
export interface GradientProgress {
  /** The first so many elements of every node are final. */
  readonly finalElements: number;
  /** Resolves when all are; rejects when they will never be. */
  readonly rest: Promise<unknown>;
}

export const ALL_FINAL: GradientProgress = { finalElements: Infinity, rest: Promise.resolve() };

/** Buckets of a vector's part `[start, end)` that may be sent at once; one that is final in part waits. */
export function finalBuckets(
  { finalElements }: GradientProgress,
  { start, end, bucketElements }: { start: number; end: number; bucketElements: number },
): number {
  if (finalElements >= end) return Math.ceil((end - start) / bucketElements);
  return Math.max(0, Math.floor((finalElements - start) / bucketElements));
}
