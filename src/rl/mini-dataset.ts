/**
 * Collects batches, then hands them out as small ones, once each: the experience buffer's unit of reuse.
 *
 * @see DeepSpeedExamples 83757d9c, dschat/utils/data/data_utils.py `MiniDataset`
 */
import { configError } from "../shared/errors.js";

export class MiniDataset<T> {
  private stored: (readonly T[])[] = [];

  /**
   * @param maxSize        batches stored before they are handed out (`generationBatches`), at least 1
   * @param smallBatchSize rows of one small batch, at least 1
   */
  constructor(
    readonly maxSize: number,
    readonly smallBatchSize: number,
  ) {
    if (!(
      Number.isInteger(maxSize) &&
      maxSize >= 1 &&
      Number.isInteger(smallBatchSize) &&
      smallBatchSize >= 1
    )) {
      throw configError(
        `MiniDataset: maxSize ${maxSize} and smallBatchSize ${smallBatchSize} must be integers from 1`,
      );
    }
  }

  /** Batches waiting: 0 to maxSize − 1 between calls. What a checkpoint stores, to be added again on resume. */
  get batches(): readonly (readonly T[])[] {
    return this.stored;
  }

  /**
   * Stores a batch. Returns null until `maxSize` batches are stored; then empties the store and returns every batch
   * cut into consecutive small ones. Cuts never join two batches, so each batch's last part may be short.
   */
  add(batch: readonly T[]): T[][] | null {
    this.stored.push(batch);
    if (this.stored.length < this.maxSize) return null;
    const small = this.stored.flatMap((rows) => cut(rows, this.smallBatchSize));
    this.free();
    return small;
  }

  /** Forgets the stored batches. */
  free(): void {
    this.stored = [];
  }
}

function cut<T>(rows: readonly T[], size: number): T[][] {
  const parts: T[][] = [];
  for (let first = 0; first < rows.length; first += size) parts.push(rows.slice(first, first + size));
  return parts;
}
