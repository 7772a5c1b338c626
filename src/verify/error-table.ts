import { dataError } from "../shared/errors.js";

/** Largest error of one quantity over all cases. */
export interface QuantityError {
  readonly quantity: string;
  readonly cases: number;
  /** |got − expected| / max(1, |expected|): absolute up to magnitude 1, relative above. */
  readonly maxError: number;
}

export type Nested = number | null | readonly Nested[];

/** Collects errors by quantity, in order of first appearance. */
export class ErrorTable {
  private readonly rows = new Map<string, { cases: number; maxError: number }>();

  /** @throws {TroupeError} DATA when the shapes differ */
  compare(quantity: string, got: Nested, expected: Nested): void {
    const row = this.rows.get(quantity) ?? { cases: 0, maxError: 0 };
    this.rows.set(quantity, {
      cases: row.cases + 1,
      maxError: Math.max(row.maxError, errorOf(quantity, got, expected)),
    });
  }

  get quantities(): QuantityError[] {
    return Array.from(this.rows, ([quantity, row]) => ({ quantity, ...row }));
  }
}

function errorOf(quantity: string, got: Nested, expected: Nested): number {
  if (typeof expected === "number" && typeof got === "number") {
    const error = Math.abs(got - expected) / Math.max(1, Math.abs(expected));
    return Number.isNaN(error) ? Infinity : error; // a NaN must not vanish in Math.max
  }
  if (expected === null && got === null) return 0;
  if (!Array.isArray(expected) || !Array.isArray(got) || expected.length !== got.length) {
    throw dataError(`${quantity}: computed ${describe(got)}, but the file has ${describe(expected)}`);
  }
  return expected.reduce(
    (max: number, entry: Nested, i) => Math.max(max, errorOf(quantity, got[i] as Nested, entry)),
    0,
  );
}

const describe = (value: Nested): string =>
  Array.isArray(value) ? `a list of ${value.length}` : String(value);
