/** How the cost of our own programs grows: each quantity at five sizes, against a straight line. */
import { contest, ourSide, type SideConfig, type Standing } from "./contest.js";
import type { BenchRow } from "./row.js";
import type { SideName } from "./sides/index.js";

interface Curve {
  readonly name: string;
  readonly side: SideName;
  /** What grows, in words. */
  readonly unit: string;
  readonly sizes: readonly number[];
  readonly configAt: (size: number) => Readonly<Record<string, number>>;
}

const MODEL = { layers: 4, hidden: 256, heads: 4, vocabulary: 4096, context: 256 };

export const CURVES: readonly Curve[] = [
  {
    name: "train step B4, tokens of a row",
    side: "train-step",
    unit: "token",
    sizes: [32, 64, 96, 128, 192],
    configAt: (length) => ({ ...MODEL, batch: 4, length }),
  },
  {
    name: "train step T64, rows",
    side: "train-step",
    unit: "row",
    sizes: [2, 4, 6, 8, 12],
    configAt: (batch) => ({ ...MODEL, batch, length: 64 }),
  },
  {
    name: "train step B4 T64, layers",
    side: "train-step",
    unit: "layer",
    sizes: [2, 4, 6, 8, 12],
    configAt: (layers) => ({ ...MODEL, layers, batch: 4, length: 64 }),
  },
  {
    name: "decode B8 P16, response tokens",
    side: "decode",
    unit: "token",
    sizes: [32, 64, 96, 128, 192],
    configAt: (responseTokens) => ({ ...MODEL, batch: 8, promptTokens: 16, responseTokens }),
  },
  {
    name: "decode P16 R48, rows",
    side: "decode",
    unit: "row",
    sizes: [4, 8, 16, 24, 32],
    configAt: (batch) => ({ ...MODEL, batch, promptTokens: 16, responseTokens: 48 }),
  },
];

/** One row per size; `ratio` is its time over that of the straight line through the smallest and the largest size. */
export async function* growth(
  curve: Curve,
  { threads, rounds }: { readonly threads: number; readonly rounds: number },
): AsyncGenerator<BenchRow> {
  const { name, side, unit, sizes, configAt } = curve;
  const commands = sizes.map((size) => {
    const config: SideConfig = { ...configAt(size), threads };
    return ourSide(side, config, String(size));
  });
  const standings = await contest(commands, { rounds, warmups: 2 });
  const ms = standings.map(({ seconds }) => seconds * 1000);
  const cpu = standings.map(({ cpuSeconds }: Standing) => cpuSeconds * 1000);
  for (const [i, size] of sizes.entries()) {
    yield {
      name: "growth",
      config: `${name}: ${size}, ${(ms[i] / size).toPrecision(3)} ms per ${unit}, ${threads} threads`,
      unit: "ms (the line's is peer)",
      ours: ms[i],
      peer: lineAt(sizes, ms, size),
      peerName: "straight line through the ends",
      ratio: ms[i] / lineAt(sizes, ms, size),
      cpuRatio: cpu[i] / lineAt(sizes, cpu, size),
    };
  }
}

/** The straight line through the first and the last point, at `x`. */
export function lineAt(xs: readonly number[], ys: readonly number[], x: number): number {
  const last = xs.length - 1;
  return ys[0] + ((ys[last] - ys[0]) * (x - xs[0])) / (xs[last] - xs[0]);
}
