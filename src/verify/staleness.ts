/**
 * What stale experience costs on a task with a known optimum: PPO whose samples come from the policy of η iterations
 * before, plain and corrected. AReaL's table (arXiv:2505.24298) in miniature.
 */
import type { Engine } from "../engine/engine.js";
import type { Importance } from "../rl/policy-loss.js";
import { OPTIMUM_DEFAULTS, verifyOptimum } from "./optimum.js";

const STALENESS_LEVELS = [0, 1, 2, 4, 8] as const;

const CORRECTIONS: readonly (Importance | null)[] = [
  null,
  { kind: "decoupled", cap: 5 },
  { kind: "truncated", cap: 5 },
];

export interface StalenessRow {
  readonly staleness: number;
  /** Share of the gap from J(π_ref) to the optimum, by correction: mean and its standard error over the seeds. */
  readonly shares: Readonly<Record<string, { readonly mean: number; readonly error: number }>>;
}

/** @param learningRate of the actor: the faster the policy moves, the older a version is */
export async function verifyStaleness(
  engine: Engine,
  { seeds, learningRate }: { readonly seeds: readonly number[]; readonly learningRate: number },
): Promise<StalenessRow[]> {
  const rows: StalenessRow[] = [];
  for (const staleness of STALENESS_LEVELS) {
    const shares: Record<string, { mean: number; error: number }> = {};
    // Nothing is stale at 0, and every form the plain one.
    for (const importance of staleness === 0 ? [null] : CORRECTIONS) {
      const reached: number[] = [];
      for (const seed of seeds) {
        const options = { ...OPTIMUM_DEFAULTS, seed, staleness, importance, learningRate };
        reached.push((await verifyOptimum(engine, options)).share);
      }
      shares[importance?.kind ?? "none"] = meanOf(reached);
    }
    rows.push({ staleness, shares });
  }
  return rows;
}

/** Mean and its standard error; NaN for that of a single value. */
function meanOf(values: readonly number[]): { mean: number; error: number } {
  const count = values.length;
  const mean = values.reduce((sum, value) => sum + value, 0) / count;
  const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  return { mean, error: Math.sqrt(squares / (count - 1) / count) };
}
