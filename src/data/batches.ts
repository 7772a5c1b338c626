import { configError, dataError } from "../shared/errors.js";
import { permutationOf, streamOf } from "../shared/rng.js";

/**
 * The order of `rows` rows in one epoch: a permutation keyed by (seed, `<name>/epoch/<epoch>`).
 * @param name what is being shuffled, e.g. "sft"; different names give unrelated orders
 */
export function epochOrder(rows: number, name: string, seed: number, epoch: number): Int32Array {
  return permutationOf(rows, seed, streamOf(`${name}/epoch/${epoch}`));
}

/**
 * Cuts an order into minibatches of exactly `size` indices; what is left over at the end (fewer than `size`) is
 * dropped for this epoch, as the next epoch shuffles anew and so drops other rows.
 * @throws {TroupeError} CONFIG when there are fewer rows than one minibatch
 */
export function minibatches(order: Int32Array, size: number): Int32Array[] {
  if (order.length < size) {
    throw configError(
      `a minibatch of ${size} rows needs at least ${size} rows, got ${order.length}; lower the batch size`,
    );
  }
  const count = Math.floor(order.length / size);
  return Array.from({ length: count }, (_, i) => order.subarray(i * size, (i + 1) * size));
}

/** Cuts rows into consecutive groups of at most `size`; the last may be short. For evaluation, where no row is lost. */
export function groupsOf<Row>(rows: readonly Row[], size: number): Row[][] {
  return Array.from({ length: Math.ceil(rows.length / size) }, (_, i) =>
    rows.slice(i * size, (i + 1) * size),
  );
}

/** Where a prompt source stands: the next call takes the row at `offset` of epoch `epoch`. */
export interface PromptPosition {
  readonly epoch: number;
  readonly offset: number;
}

/**
 * An endless, shuffled supply of rows: every epoch visits each row once, in an order of its own; a batch may span
 * two epochs. The position is two integers, so a checkpoint can keep it and a resumed run goes on with the same rows.
 */
export class PromptSource<Row> {
  #epoch = 0;
  #offset = 0;
  #order: Int32Array;

  constructor(
    readonly rows: readonly Row[],
    readonly seed: number,
    position: PromptPosition = { epoch: 0, offset: 0 },
    readonly name = "ppo",
  ) {
    if (rows.length === 0) throw dataError("no prompts to draw from: the ppo split has no training rows");
    this.#order = epochOrder(rows.length, name, seed, 0);
    this.seek(position);
  }

  get position(): PromptPosition {
    return { epoch: this.#epoch, offset: this.#offset };
  }

  /**
   * Continues from a saved position.
   * @throws {TroupeError} DATA when it does not fit these rows (the data changed since)
   */
  seek(position: PromptPosition): void {
    const { epoch, offset } = position;
    const fits = Number.isSafeInteger(epoch) && Number.isSafeInteger(offset) && epoch >= 0 && offset >= 0;
    if (!fits || offset > this.rows.length) {
      throw dataError(
        `prompt position epoch ${epoch}, offset ${offset} does not fit ${this.rows.length} prompts; resume with the data the checkpoint was made with`,
      );
    }
    this.#epoch = epoch;
    this.#offset = offset;
    this.#order = epochOrder(this.rows.length, this.name, this.seed, epoch);
  }

  /** The next `count` rows, going on into the next epoch where this one ends. */
  next(count: number): Row[] {
    const batch: Row[] = [];
    while (batch.length < count) {
      if (this.#offset === this.rows.length) this.seek({ epoch: this.#epoch + 1, offset: 0 });
      batch.push(this.rows[this.#order[this.#offset++]]);
    }
    return batch;
  }
}
