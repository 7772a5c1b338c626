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
  const weight = (id: number): number =>
    forbidden.includes(id) ? 0 : expNegative((logits[id] - highest) * inverseTemperature);
  const changed = new Map<number, number>();
  for (const id of forbidden) {
    const block = Math.floor(id / SUM_BLOCK);
    if (!changed.has(block)) changed.set(block, sumOfBlock(block, logits.length, weight));
  }
  let total = 0;
  for (let block = 0; block < sums.length; block++) total += changed.get(block) ?? sums[block];
  if (total < LEAST_MASS) return null;

  const target = uniform * total;
  let cumulative = 0;
  let block = 0;
  while (block < sums.length - 1) {
    const next = cumulative + (changed.get(block) ?? sums[block]);
    if (next > target) break;
    cumulative = next;
    block++;
  }
  // Rounding may keep the block's own weights from reaching the target: then its last possible token stands.
  let token = -1;
  for (let id = block * SUM_BLOCK; id < logits.length; id++) {
    const share = weight(id);
    if (share > 0) token = id;
    cumulative += share;
    if (token >= 0 && (cumulative > target || id >= (block + 1) * SUM_BLOCK)) break;
  }
  if (token < 0) return null;
  return { token, logprob: (logits[token] - highest) * inverseTemperature - Math.log(total) };
}

function sumOfBlock(block: number, vocabularySize: number, weight: (id: number) => number): number {
  const end = Math.min((block + 1) * SUM_BLOCK, vocabularySize);
  let sum = 0;
  for (let id = block * SUM_BLOCK; id < end; id++) sum += weight(id);
  return sum;
}
