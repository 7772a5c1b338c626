/**
 * Sequences of different lengths laid end to end into rows of one length, so that hardly any padding is computed and a
 * run compiles a handful of programs.
 *
 *   lengths 5 3 7 1 4, rows of 8      │ 7 7 7 7 7 7 7 1 │
 *                                     │ 5 5 5 5 5 3 3 3 │
 *                                     │ 4 4 4 4 · · · · │
 *
 * What is laid where depends on the lengths alone, so every learner lays a micro-shard out in the same way.
 */
import { configError } from "../shared/errors.js";

/** Where a sequence lies. */
export interface Place {
  /** Index among the lengths given. */
  readonly item: number;
  readonly row: number;
  /** Column of its first token. */
  readonly start: number;
}

/** One program run. */
export interface PackedRun {
  /** A power of two. */
  readonly rows: number;
  /** Tokens of a row: a rung of the ladder, see `rowLength`. */
  readonly length: number;
  /** In the order of the lengths given. */
  readonly places: readonly Place[];
}

export interface PackingOptions {
  /** Tokens of a run, padding included; a longer sequence gets a run of one row. */
  readonly budgetTokens: number;
  /** D, the model's width: attention's share of a token's cost is about length / (6·D). */
  readonly hidden: number;
}

/** What one more run costs, in tokens: reading and adding every gradient once (25 to 50 measured). */
const RUN_TOKENS = 48;
/** Rows are at most this many times as long as the longest sequence needs. */
const MAX_STRETCH = 2;

/** The smallest row length that holds `tokens`: eight to an octave, multiples of 16. */
export function rowLength(tokens: number): number {
  const rung = Math.max(16, powerOfTwoBelow(tokens) / 8);
  return Math.ceil(tokens / rung) * rung;
}

/**
 * Lays sequences of `lengths` tokens into runs. Of the row lengths between one and two times what the longest needs,
 * the one that costs least is taken: longer rows leave less unused and compute more attention.
 * @throws {TroupeError} CONFIG for a budget below one token
 */
export function packRuns(lengths: readonly number[], options: PackingOptions): PackedRun[] {
  const { budgetTokens } = options;
  if (!(budgetTokens >= 1))
    throw configError(`engine.microBatchTokens must be at least 1, got ${budgetTokens}`);
  if (lengths.length === 0) return [];
  const shortest = rowLength(Math.max(1, ...lengths));
  const longest = Math.max(shortest, Math.min(MAX_STRETCH * shortest, budgetTokens));
  let best = layOut(lengths, shortest, options);
  for (let length = rowLength(shortest + 1); length <= longest; length = rowLength(length + 1)) {
    const candidate = layOut(lengths, length, options);
    if (candidate.cost < best.cost) best = candidate;
  }
  return runsOf(best);
}

interface Layout {
  readonly length: number;
  /** Items of every row, left to right. */
  readonly rows: readonly (readonly number[])[];
  readonly starts: readonly number[];
  /** Rows of every run. */
  readonly cuts: readonly number[];
  /** In tokens of a model without attention. */
  readonly cost: number;
}

function layOut(
  lengths: readonly number[],
  length: number,
  { budgetTokens, hidden }: PackingOptions,
): Layout {
  const { rows, starts } = fillRows(lengths, length);
  const cuts = cutRows(rows.length, length, budgetTokens);
  const tokens = length * cuts.reduce((sum, count) => sum + count, 0);
  return {
    length,
    rows,
    starts,
    cuts,
    cost: tokens * (1 + length / (6 * hidden)) + RUN_TOKENS * cuts.length,
  };
}

/** Best fit, longest first: each sequence goes to the fullest row that still holds it. */
function fillRows(lengths: readonly number[], length: number): { rows: number[][]; starts: number[] } {
  const order = lengths.map((_, item) => item).sort((a, b) => lengths[b] - lengths[a] || a - b);
  const rows: number[][] = [];
  const used: number[] = [];
  const starts = new Array<number>(lengths.length).fill(0);
  for (const item of order) {
    let row = -1;
    used.forEach((tokens, candidate) => {
      if (tokens + lengths[item] <= length && (row < 0 || tokens > used[row])) row = candidate;
    });
    if (row < 0) row = rows.push([]) - 1;
    starts[item] = used[row] ?? 0;
    rows[row].push(item);
    used[row] = starts[item] + lengths[item];
  }
  return { rows, starts };
}

/** Row counts of the runs, powers of two; a run has empty rows where that costs less than another run. */
function cutRows(count: number, length: number, budgetTokens: number): number[] {
  const most = Math.max(1, powerOfTwoBelow(budgetTokens / length));
  const cuts: number[] = [];
  for (let left = count; left > 0;) {
    const size = Math.min(most, powerOfTwoBelow(left));
    const runsSaved = onesOf(left) - 1;
    if (size < left && 2 * size <= most && (2 * size - left) * length <= RUN_TOKENS * runsSaved) {
      cuts.push(2 * size);
      break;
    }
    cuts.push(size);
    left -= size;
  }
  return cuts;
}

function runsOf({ length, rows, starts, cuts }: Layout): PackedRun[] {
  let first = 0;
  return cuts.map((count) => {
    const places = rows
      .slice(first, first + count)
      .flatMap((items, row) => items.map((item) => ({ item, row, start: starts[item] })))
      .sort((a, b) => a.item - b.item);
    first += count;
    return { rows: count, length, places };
  });
}

/** The largest power of two that is at most `x`, for x ≥ 1. */
const powerOfTwoBelow = (x: number): number => (x < 1 ? 0 : 2 ** Math.floor(Math.log2(x)));

/** Ones in the binary form of a whole number. */
function onesOf(count: number): number {
  let ones = 0;
  for (let rest = count; rest > 0; rest = Math.floor(rest / 2)) ones += rest % 2;
  return ones;
}
