/**
 * The few shapes that the runs of a stage have. A program is traced and compiled for each, and its session keeps some
 * memory, so they are chosen once a stage, from what its micro-shards are expected to hold.
 */
import type { ModelSpec } from "../models/model-spec.js";
import type { ShardRows } from "../rpc/codec/shard.js";
import type { Steps } from "../shared/steps.js";
import {
  layInto,
  rowLength,
  rowLengthsFor,
  type Packable,
  type PackingOptions,
  type RunShape,
} from "./packing.js";

/** More would lay micro-shards a little tighter, and take longer to compile. */
export const MAX_SHAPES = 8;
/** Shapes that are looked at for each micro-shard: the cheapest by themselves. */
const SHAPES_OF_EACH = 6;
/** A further shape has to save this share of what all runs cost. */
const LEAST_SAVING = 0.002;

/** What runs of a model cost, see `PackingOptions`: a layer takes 12·D² products a token, the head V·D a listed one. */
export function layCosts({ head, hidden, layers, vocabularySize }: ModelSpec) {
  // Of the last layer, three quarters are computed at listed positions only.
  const ofHead = head === "lm" ? vocabularySize / (12 * hidden) : 0;
  return { hidden, listedCost: (ofHead + 0.75) / layers };
}

/** The sequences of a micro-shard as they are laid; those of its ptx rows are apart. */
export function packablesOf(rows: ShardRows): Packable[] {
  switch (rows.kind) {
    case "sft":
      return rows.rows.map(({ ids, lossMask }) => ({
        length: ids.length,
        listed: lossMask.reduce((sum, counts, t) => sum + (t >= 1 ? counts : 0), 0),
      }));
    case "reward":
      return rows.rows.map(({ chosen, rejected }) => ({
        length: Math.max(chosen.length, rejected.length),
        listed: 1,
      }));
    case "ppo":
      return rows.rows.map(({ promptIds, responseIds, actionMask }) => ({
        length: promptIds.length + responseIds.length,
        listed: actionMask.reduce((sum, counts) => sum + counts, 0),
      }));
  }
}

/**
 * At most `MAX_SHAPES` shapes, one of them for a sequence of `longest` tokens that lists them all: first the one that lays
 * out the micro-shards cheapest alone, then again and again the one that saves most beside those before it.
 * @param shards  what micro-shards of the stage are like
 * @param longest tokens that a sequence of the stage may have
 */
export function* choosingRunShapes(
  shards: readonly (readonly Packable[])[],
  longest: number,
  options: Omit<PackingOptions, "shapes">,
): Steps<RunShape[]> {
  const candidates = new Map<string, RunShape>();
  const add = (shape: RunShape) => candidates.set(`${shape.rows} ${shape.length} ${shape.listed}`, shape);
  for (const shard of shards) {
    shapesFor(shard, options).forEach(add);
    yield;
  }
  const holdsAll = shapesOfLongest(longest, options);
  holdsAll.forEach(add);
  const shapes = [...candidates.values()];
  // Of each shard's tokens, so that short and long ones count alike.
  const costs: number[][] = [];
  for (const shape of shapes) {
    costs.push(shards.map((shard) => costIn(shape, shard, options)));
    yield;
  }
  const taken: RunShape[] = [];
  let best = shards.map(() => Infinity);
  while (taken.length < MAX_SHAPES) {
    const open = shapes.flatMap((shape, i) =>
      taken.includes(shape) || (taken.length === 0 && !holdsAll.includes(shape))
        ? []
        : [{ shape, after: best.map((cost, shard) => Math.min(cost, costs[i][shard])) }],
    );
    if (open.length === 0) break;
    const next = open.reduce((a, b) => (sumOf(b.after) < sumOf(a.after) ? b : a));
    const saving = sumOf(best) - sumOf(next.after);
    if (taken.length > 0 && !(saving > LEAST_SAVING * sumOf(best))) break;
    taken.push(next.shape);
    best = next.after;
  }
  return taken;
}

/** Those that hold anything: a row as long as the longest, and everything listed. */
function shapesOfLongest(longest: number, options: Omit<PackingOptions, "shapes">): RunShape[] {
  const length = rowLength(Math.max(1, longest));
  return rowCounts(length, Infinity, options).map((rows) => ({
    rows,
    length,
    listed: options.roundListed(rows * length, rows * length),
  }));
}

/** The cheapest for one micro-shard. */
function shapesFor(shard: readonly Packable[], options: Omit<PackingOptions, "shapes">): RunShape[] {
  const shapes: { shape: RunShape; cost: number }[] = [];
  for (const length of rowLengthsFor(shard, options)) {
    const everything = { rows: 1, length, listed: Infinity };
    const rowsNeeded = layInto(everything, shard, options)?.rows.length ?? 0;
    for (const rows of rowCounts(length, rowsNeeded, options)) {
      const layout = layInto({ rows, length, listed: Infinity }, shard, options);
      if (layout === null) continue;
      let first = 0;
      const lists = layout.runs.map(({ count }) => {
        const items = layout.rows.slice(first, first + count).flat();
        first += count;
        return items.reduce((sum, item) => sum + shard[item].listed, 0);
      });
      const shape = { rows, length, listed: options.roundListed(Math.max(...lists), rows * length) };
      shapes.push({ shape, cost: costIn(shape, shard, options) });
    }
  }
  return shapes
    .sort((a, b) => a.cost - b.cost)
    .slice(0, SHAPES_OF_EACH)
    .map(({ shape }) => shape);
}

/** Powers of two, up to one that takes `rowsNeeded` in one run, within the budget if that goes. */
function rowCounts(
  length: number,
  rowsNeeded: number,
  { budgetTokens }: Pick<PackingOptions, "budgetTokens">,
) {
  const counts = [1];
  for (let rows = 2; rows * length <= budgetTokens && rows < 2 * rowsNeeded; rows *= 2) counts.push(rows);
  return counts;
}

function costIn(
  shape: RunShape,
  shard: readonly Packable[],
  options: Omit<PackingOptions, "shapes">,
): number {
  const tokens = shard.reduce((sum, { length }) => sum + length, 0);
  return (layInto(shape, shard, options)?.cost ?? Infinity) / Math.max(1, tokens);
}

const sumOf = (costs: readonly number[]): number => costs.reduce((sum, cost) => sum + cost, 0);
