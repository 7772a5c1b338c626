import { configError } from "../shared/errors.js";
import { permutationOf, streamOf } from "../shared/rng.js";
import { PHASES, type PhaseName } from "./types.js";

/** Row indices of one phase, in the phase's (shuffled) order. */
export interface PhaseIndices {
  readonly train: Int32Array;
  readonly eval: Int32Array;
}

export interface SplitOptions {
  /** Rows in the file, bad ones included, so that a change of filters never moves a row to another phase. */
  readonly rows: number;
  /** Shares of sft, reward, ppo; any scale (`[2, 4, 4]`). */
  readonly shares: readonly [number, number, number];
  readonly evalFraction: number;
  readonly seed: number;
}

/**
 * Divides row indices over the three phases.
 *
 *   order      = permutation of 0..rows-1 keyed by (seed, "data/phase-split")
 *   boundary_k = round(rows · (share_1 + … + share_k) / Σ share)
 *   phase k    = order[boundary_{k−1} .. boundary_k);  its first round(size · evalFraction) rows are held out
 *
 * The six parts are disjoint and together hold every row once. A fraction above 0 holds out at least one row of a
 * phase with two or more. The same (rows, shares, evalFraction, seed) give the same parts on any machine.
 * @see DeepSpeed-Chat `dschat/utils/data/data_utils.py` get_raw_dataset_split_index (same idea, its own shuffle)
 */
export function splitPhases(options: SplitOptions): Readonly<Record<PhaseName, PhaseIndices>> {
  const { rows, shares, evalFraction, seed } = options;
  const total = shares[0] + shares[1] + shares[2];
  if (!(total > 0))
    throw configError(`data.split is [${shares.join(", ")}]; expected at least one share above 0`);
  const order = permutationOf(rows, seed, streamOf("data/phase-split"));
  let cumulative = 0;
  let start = 0;
  const parts = PHASES.map((name, k): [PhaseName, PhaseIndices] => {
    cumulative += shares[k];
    const end = Math.round((rows * cumulative) / total);
    const size = end - start;
    const wanted = Math.round(size * evalFraction);
    const held = evalFraction > 0 && size >= 2 ? Math.min(Math.max(1, wanted), size - 1) : 0;
    const part = { eval: order.slice(start, start + held), train: order.slice(start + held, end) };
    start = end;
    return [name, part];
  });
  return Object.fromEntries(parts) as Record<PhaseName, PhaseIndices>;
}
