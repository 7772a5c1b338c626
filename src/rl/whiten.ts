import { dataError, shapeError } from "../shared/errors.js";
import { atOnce, type Steps } from "../shared/steps.js";

/** TensorFlow's moments divide by n ("population"), torch.var by n − 1 ("sample"). */
export type VarianceKind = "population" | "sample";

export interface WhitenOptions {
  /** False keeps the mean and only scales, as OpenAI 2019 does with rewards. @default true */
  readonly shiftMean?: boolean;
  /** @default "population": defined for a single token too */
  readonly variance?: VarianceKind;
}

/** Keeps a zero-variance batch finite: it whitens to zeros. */
const VARIANCE_EPSILON = 1e-8;

/**
 * Whitens numbers over all counted tokens of a batch together.
 *
 *   x' = (x − mean) / √(var + 1e-8)  (+ mean when shiftMean is false)
 *
 * Sums run in row order in float64, so the result depends on the order of rows only through rounding: sort rows by
 * experience id for bit-identical results.
 *
 * @param rows  B rows, `[R_b]` each
 * @param masks B rows, `[R_b]` each; tokens with 0 enter neither moment
 * @returns B new rows; positions with mask 0 are 0
 * @throws {TroupeError} DATA when no token counts, or one with `variance: "sample"`; SHAPE when rows and masks differ
 * @see TRL `masked_whiten`; Huang et al. 2023, "The N Implementation Details of RLHF with PPO"
 */
export function whiten(
  rows: readonly Float32Array[],
  masks: readonly Uint8Array[],
  options: WhitenOptions = {},
): Float32Array[] {
  return atOnce(whitening(rows, masks, options));
}

/** The same, with a pause after every row. */
export function* whitening(
  rows: readonly Float32Array[],
  masks: readonly Uint8Array[],
  { shiftMean = true, variance = "population" }: WhitenOptions = {},
): Steps<Float32Array[]> {
  if (rows.length !== masks.length || rows.some((row, b) => row.length !== masks[b].length)) {
    throw shapeError(`whiten: the shapes of ${rows.length} rows and ${masks.length} masks differ`);
  }
  let count = 0;
  let sum = 0;
  for (let b = 0; b < rows.length; b++) {
    const row = rows[b];
    const mask = masks[b];
    for (let i = 0; i < row.length; i++) {
      if (mask[i] === 0) continue;
      count++;
      sum += row[i];
    }
    yield;
  }
  const degrees = variance === "population" ? count : count - 1;
  if (degrees < 1) {
    throw dataError(
      `whiten: ${count} counted tokens in the batch; ${variance} variance needs ${count - degrees + 1}`,
    );
  }
  const mean = sum / count;
  let squares = 0;
  for (let b = 0; b < rows.length; b++) {
    const row = rows[b];
    const mask = masks[b];
    for (let i = 0; i < row.length; i++) if (mask[i] === 1) squares += (row[i] - mean) * (row[i] - mean);
    yield;
  }
  const scale = 1 / Math.sqrt(squares / degrees + VARIANCE_EPSILON);
  const offset = shiftMean ? 0 : mean;
  const whitened: Float32Array[] = [];
  for (let b = 0; b < rows.length; b++) {
    const row = rows[b];
    const mask = masks[b];
    const out = new Float32Array(row.length);
    for (let i = 0; i < row.length; i++) if (mask[i] === 1) out[i] = (row[i] - mean) * scale + offset;
    whitened.push(out);
    yield;
  }
  return whitened;
}
