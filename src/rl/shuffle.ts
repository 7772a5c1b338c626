import { permutationOf, streamOf } from "../shared/rng.js";

/** Which shuffle of a run this is; equal keys give the same order on every machine. */
export interface ShuffleKey {
  readonly seed: number;
  /** PPO iteration, or 0 in stages without. */
  readonly iteration: number;
  /** Pass over the data. */
  readonly epoch: number;
}

/**
 * The order in which a pass visits n items.
 * @returns `[n]` a permutation of 0 … n−1
 */
export function shuffledOrder(n: number, { seed, iteration, epoch }: ShuffleKey): Int32Array {
  return permutationOf(n, seed, streamOf(`shuffle/${iteration}/${epoch}`));
}

/** The items in the order of `shuffledOrder`; the input stays as it is. */
export function shuffled<T>(items: readonly T[], key: ShuffleKey): T[] {
  return Array.from(shuffledOrder(items.length, key), (index) => items[index]);
}
