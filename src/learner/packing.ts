/**
 * Sequences of different lengths laid end to end into rows of one length, so that hardly any padding is computed.
 *
 *   lengths 5 3 7 1 4, rows of 8      │ 7 7 7 7 7 7 7 1 │
 *                                     │ 5 5 5 5 5 3 3 3 │
 *                                     │ 4 4 4 4 · · · · │
 *
 * The runs of a micro-shard have one of the stage's few shapes (./run-shapes), so that a handful of programs is compiled;
 * what none of them holds gets a shape of its own. What is laid where depends on the lengths and the stage's shapes alone,
 * so every learner lays a micro-shard out in the same way.
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

/** What a gradient program is compiled for. */
export interface RunShape {
  /** A power of two. */
  readonly rows: number;
  /** Tokens of a row: a rung of the ladder, see `rowLength`. */
  readonly length: number;
  /** Entries of its list: tokens that a loss counts, or pairs. */
  readonly listed: number;
}

/** One program run. */
export interface PackedRun extends RunShape {
  /** In the order of the lengths given. */
  readonly places: readonly Place[];
}

/** What is to be laid. */
export interface Packable {
  /** Tokens. */
  readonly length: number;
  /** How many entries it has in its run's list. */
  readonly listed: number;
}

export interface PackingOptions {
  /** Tokens of a run, padding included; a longer sequence gets a run of one row. */
  readonly budgetTokens: number;
  /** D, the model's width: attention's share of a token's cost is about length / (6·D). */
  readonly hidden: number;
  /** What a listed entry costs, in tokens. @default 0 */
  readonly listedCost?: number;
  /** Entries that a program of so many positions is compiled for when a run lists `count`. */
  readonly roundListed: (count: number, positions: number) => number;
  /** Those of the stage. @default none: every micro-shard has a shape that suits it */
  readonly shapes?: readonly RunShape[];
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
 * Lays sequences into runs: all of them in the cheapest of the stage's shapes that hold them. Where there is none, of the row lengths between one and two times what the longest needs,
 * the one that costs least is taken: longer rows leave less unused and compute more attention.
 * @throws {TroupeError} CONFIG for a budget below one token
 */
export function packRuns(items: readonly Packable[], options: PackingOptions): PackedRun[] {
  if (!(options.budgetTokens >= 1))
    throw configError(`engine.microBatchTokens must be at least 1, got ${options.budgetTokens}`);
  if (items.length === 0) return [];
  const inShapes = (options.shapes ?? [])
    .map((shape) => layInto(shape, items, options))
    .filter((layout) => layout !== null);
  if (inShapes.length > 0) return runsOf(cheapest(inShapes));
  return runsOf(cheapest(rowLengthsFor(items, options).map((length) => layOut(items, length, options))));
}

/** Rungs between one and two times what the longest needs, within the budget if that goes. */
export function rowLengthsFor(items: readonly Packable[], { budgetTokens }: PackingOptions): number[] {
  const shortest = rowLength(items.reduce((most, { length }) => Math.max(most, length), 1));
  const longest = Math.max(shortest, Math.min(MAX_STRETCH * shortest, budgetTokens));
  const lengths = [];
  for (let length = shortest; length <= longest; length = rowLength(length + 1)) lengths.push(length);
  return lengths;
}

export interface Layout {
  readonly length: number;
  /** Items of every row, left to right. */
  readonly rows: readonly (readonly number[])[];
  readonly starts: readonly number[];
  /** The runs: how many of the rows each takes, in order, and what its program is compiled for. */
  readonly runs: readonly { readonly count: number; readonly rows: number; readonly listed: number }[];
  /** In tokens of a model without attention. */
  readonly cost: number;
}

const cheapest = (layouts: readonly Layout[]): Layout =>
  layouts.reduce((best, layout) => (layout.cost < best.cost ? layout : best));

/** Runs of one shape; null when it does not hold a sequence, or a row's list. */
export function layInto(
  shape: RunShape,
  items: readonly Packable[],
  options: Pick<PackingOptions, "hidden" | "listedCost">,
): Layout | null {
  if (items.some(({ length }) => length > shape.length)) return null;
  const { rows, starts } = fillRows(items, shape.length);
  const runs: { count: number; rows: number; listed: number }[] = [];
  let left = 0; // of the last run's list
  for (const row of rows) {
    const listed = listedIn(row, items);
    if (listed > shape.listed) return null;
    const last = runs.at(-1);
    if (last !== undefined && last.count < shape.rows && listed <= left) {
      last.count += 1;
      left -= listed;
    } else {
      runs.push({ count: 1, rows: shape.rows, listed: shape.listed });
      left = shape.listed - listed;
    }
  }
  return { length: shape.length, rows, starts, runs, cost: costOf(runs, shape.length, options) };
}

function layOut(items: readonly Packable[], length: number, options: PackingOptions): Layout {
  const { rows, starts } = fillRows(items, length);
  let first = 0;
  const runs = cutRows(rows.length, length, options.budgetTokens).map((size) => {
    const taken = rows.slice(first, first + size);
    first += size;
    const listed = taken.reduce((sum, row) => sum + listedIn(row, items), 0);
    return { count: taken.length, rows: size, listed: options.roundListed(listed, size * length) };
  });
  return { length, rows, starts, runs, cost: costOf(runs, length, options) };
}

const listedIn = (row: readonly number[], items: readonly Packable[]): number =>
  row.reduce((sum, item) => sum + items[item].listed, 0);

function costOf(
  runs: Layout["runs"],
  length: number,
  { hidden, listedCost = 0 }: Pick<PackingOptions, "hidden" | "listedCost">,
): number {
  const perToken = 1 + length / (6 * hidden);
  return runs.reduce(
    (sum, { rows, listed }) => sum + rows * length * perToken + listed * listedCost + RUN_TOKENS,
    0,
  );
}

/** Best fit, longest first: each sequence goes to the fullest row that still holds it. */
function fillRows(items: readonly Packable[], length: number): { rows: number[][]; starts: number[] } {
  const order = items.map((_, item) => item).sort((a, b) => items[b].length - items[a].length || a - b);
  const rows: number[][] = [];
  const used: number[] = [];
  const starts = new Array<number>(items.length).fill(0);
  for (const item of order) {
    let row = -1;
    used.forEach((tokens, candidate) => {
      if (tokens + items[item].length <= length && (row < 0 || tokens > used[row])) row = candidate;
    });
    if (row < 0) row = rows.push([]) - 1;
    starts[item] = used[row] ?? 0;
    rows[row].push(item);
    used[row] = starts[item] + items[item].length;
  }
  return { rows, starts };
}

/** Rows of the runs, powers of two; a run has empty rows where that costs less than another run. */
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

function runsOf({ length, rows, starts, runs }: Layout): PackedRun[] {
  let first = 0;
  return runs.map(({ count, rows: size, listed }) => {
    const places = rows
      .slice(first, first + count)
      .flatMap((items, row) => items.map((item) => ({ item, row, start: starts[item] })))
      .sort((a, b) => a.item - b.item);
    first += count;
    return { rows: size, length, listed, places };
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
