import type { Arena } from "./engine.js";
import { HostArena } from "./host-arena.js";
import type { Layout } from "./layout.js";
import { CLIP_EPSILON, isVector, type AdamwOptions } from "./optim.js";
import type { VectorPool } from "./vector-pool.js";

export interface AdamwArenas {
  readonly params: Arena;
  readonly m: Arena;
  readonly v: Arena;
}

/**
 * √(Σ g²), accumulated in float64; not finite when an element is not, or when the squares do not fit float32, as in
 * `globalNorm`.
 */
export async function gradientNorm(gradient: Float32Array, pool: VectorPool): Promise<number> {
  const squares = await pool.sumOfSquares(gradient);
  return Number.isFinite(Math.fround(squares)) ? Math.sqrt(squares) : squares * Infinity;
}

/**
 * The step of `makeAdamwProgram` on state in host memory: one pass over it instead of one per operation, and no scratch
 * memory.
 *
 * @param gradient `[layout.size]`, read in place  @param norm its `gradientNorm`
 * @param step this step's number, from 1
 * @returns false when the state is on a device: nothing was done, run the program
 */
export async function adamwOnHost(
  { params, m, v }: AdamwArenas,
  gradient: Float32Array,
  norm: number,
  { learningRate, step }: { readonly learningRate: number; readonly step: number },
  { beta1, beta2, epsilon, weightDecay, clipNorm, noDecay = isVector }: AdamwOptions,
  pool: VectorPool,
): Promise<boolean> {
  if (!(params instanceof HostArena && m instanceof HostArena && v instanceof HostArena)) return false;
  const shared = {
    gradScale: clipNorm === 0 ? 1 : Math.min(1, clipNorm / (norm + CLIP_EPSILON)),
    beta1,
    beta2,
    stepSize: learningRate / oneMinusPower(beta1, step),
    correction: 1 / Math.sqrt(oneMinusPower(beta2, step)),
    epsilon,
  };
  for (const { start, end, decays } of decayRanges(params.layout, noDecay)) {
    const part = (values: Float32Array) => values.subarray(start, end);
    await pool.adamw(
      { param: part(params.values), grad: part(gradient), m: part(m.values), v: part(v.values) },
      { ...shared, decay: decays ? 1 - learningRate * weightDecay : 1 },
    );
  }
  return true;
}

/** 1 − βᵗ without the loss of digits of the subtraction. */
const oneMinusPower = (beta: number, step: number): number =>
  beta === 0 ? 1 : -Math.expm1(step * Math.log(beta));

interface DecayRange {
  readonly start: number;
  end: number;
  readonly decays: boolean;
}

/** Neighbouring tensors with the same treatment, as ranges of elements. */
function decayRanges(layout: Layout, noDecay: NonNullable<AdamwOptions["noDecay"]>): DecayRange[] {
  const ranges: DecayRange[] = [];
  for (const { name, shape, offset, size } of layout.entries) {
    const decays = !noDecay(name, shape);
    const last = ranges.at(-1);
    if (last !== undefined && last.decays === decays) last.end = offset + size;
    else ranges.push({ start: offset, end: offset + size, decays });
  }
  return ranges;
}
