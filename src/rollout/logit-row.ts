import type { HostArrays } from "../engine/engine.js";
import { expNegative } from "./exponential.js";

/** Tokens of one partial sum. */
export const SUM_BLOCK = 256;

/** One row of a generation program's outputs. */
export interface LogitRow {
  /** `[V]` */
  readonly logits: Float32Array;
  /** The largest logit. */
  readonly highest: number;
  /** `[⌈V / SUM_BLOCK⌉]`, Σ exp((logit − highest) / temperature) over each block of tokens, in float32. */
  readonly sums: Float32Array;
}

/** Row `row` of `outputs`, as views. */
export function logitRow(outputs: HostArrays, row: number, vocabularySize: number): LogitRow {
  const { logits, highest, sums } = outputs as Readonly<Record<string, Float32Array>>;
  const blocks = Math.ceil(vocabularySize / SUM_BLOCK);
  return {
    logits: logits.subarray(row * vocabularySize, (row + 1) * vocabularySize),
    highest: highest[row],
    sums: sums.subarray(row * blocks, (row + 1) * blocks),
  };
}

/** Below this share of the untruncated mass, what is left has too few bits in the sums: they were rounded to float32. */
const LEAST_MASS = 1e-3;

/**
 * A draw from softmax(logits / temperature) without `forbidden`, reading one block of tokens instead of all:
 *
 *   token = first id whose cumulative weight exceeds uniform · total
 *
 * @returns null when nearly all of the mass is forbidden: then the sums are too coarse
 */
export function drawByBlocks(
  { logits, highest, sums }: LogitRow,
  inverseTemperature: number,
  forbidden: readonly number[],
  uniform: number,
): { readonly token: number; readonly logprob: number } | null {
  const scale: Scale = { highest, inverseTemperature };
  const changed = new Map<number, number>();
  for (const id of forbidden) {
    const block = Math.floor(id / SUM_BLOCK);
    if (!changed.has(block)) changed.set(block, allowedSum(logits, block, scale, forbidden));
  }
  const sumOf = (block: number): number =>
    (changed.size === 0 ? undefined : changed.get(block)) ?? sums[block];
  let total = 0;
  for (let block = 0; block < sums.length; block++) total += sumOf(block);
  if (total < LEAST_MASS) return null;

  const target = uniform * total;
  let cumulative = 0;
  let block = 0;
  while (block < sums.length - 1) {
    const next = cumulative + sumOf(block);
    if (next > target) break;
    cumulative = next;
    block++;
  }
  // Rounding may keep the block's own weights from reaching the target: then its last possible token stands.
  let token = -1;
  for (; token < 0 && block < sums.length; block++) {
    const isWhole = !changed.has(block);
    const end = Math.min((block + 1) * SUM_BLOCK, logits.length);
    for (let id = block * SUM_BLOCK; id < end; id++) {
      const share = expNegative((logits[id] - highest) * inverseTemperature);
      if (share === 0 || !(isWhole || !forbidden.includes(id))) continue;
      token = id;
      cumulative += share;
      if (cumulative > target) break;
    }
  }
  if (token < 0) return null;
  return { token, logprob: (logits[token] - highest) * inverseTemperature - Math.log(total) };
}

/** What turns a logit into a weight: exp((logit − highest) · inverseTemperature). */
interface Scale {
  readonly highest: number;
  readonly inverseTemperature: number;
}

/** Weight of a block's tokens but for the forbidden ones. */
function allowedSum(
  logits: Float32Array,
  block: number,
  { highest, inverseTemperature }: Scale,
  forbidden: readonly number[],
): number {
  const end = Math.min((block + 1) * SUM_BLOCK, logits.length);
  let sum = 0;
  for (let id = block * SUM_BLOCK; id < end; id++) {
    if (!forbidden.includes(id)) sum += expNegative((logits[id] - highest) * inverseTemperature);
  }
  return sum;
}
