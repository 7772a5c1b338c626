/** The benchmarks: what each measures, with which models, and how its numbers become rows. */
import {
  contest,
  fastestOf,
  ourSide,
  peerSide,
  peerSides,
  type SideConfig,
  type Standing,
} from "./contest.js";
import { MODELS, NO_PEER, type ModelName } from "./models.js";
import { asynchronous, clusterOverhead, ppoIteration } from "./ppo-benchmarks.js";
import { CURVES, growth } from "./growth.js";
import { experience } from "./experience-benchmark.js";
import { weights } from "./weights-benchmark.js";
import { ratioOf, type BenchRow } from "./row.js";
import type { SideName } from "./sides/index.js";

export interface BenchOptions {
  readonly threads: number;
  readonly rounds: number;
  /** Only configurations whose text contains this. */
  readonly only: string;
}

export type Benchmark = (options: BenchOptions) => AsyncGenerator<BenchRow>;

interface Case {
  readonly model: ModelName;
  readonly text: string;
  readonly config: Readonly<Record<string, number | readonly number[]>>;
}

/** One side against the fastest of one or more peers on each of `cases`; `toRows` turns two standings into rows. */
async function* duels(
  name: string,
  side: SideName,
  peers: readonly string[],
  cases: readonly Case[],
  { threads, rounds, only }: BenchOptions,
  toRows: (ours: Standing, peer: Standing | null) => Omit<BenchRow, "name" | "config" | "peerName">[],
): AsyncGenerator<BenchRow> {
  for (const { model, text, config } of cases) {
    const label = `${model} ${text}, ${threads} threads`;
    if (!label.includes(only)) continue;
    const shared: SideConfig = { ...MODELS[model], ...config, threads };
    const opponents = peers.map((peer) => peerSides(peer, shared, peer));
    const [ours, ...others] = await contest([ourSide(side, shared), ...opponents.flat()], {
      rounds,
      warmups: 2,
    });
    const best = opponents.map((ofPeer) => fastestOf(others.splice(0, ofPeer.length)));
    for (const peer of best.every((one) => one === null) ? [null] : best) {
      for (const row of toRows(ours, peer))
        yield { name, config: label, ...row, peerName: peer?.version ?? NO_PEER };
    }
  }
}

const timeRow = (ours: Standing, peer: Standing | null) => ({
  unit: "ms (less is better)",
  ours: ours.seconds * 1000,
  peer: peer === null ? null : peer.seconds * 1000,
  ratio: ratioOf(ours.seconds, peer?.seconds ?? null),
  ...(peer === null ? {} : { cpuRatio: ours.cpuSeconds / peer.cpuSeconds }),
});

const memoryRow = (ours: Standing, peer: Standing | null) => ({
  unit: "MB peak (less is better)",
  ours: ours.peakMb,
  peer: peer?.peakMb ?? null,
  ratio: ratioOf(ours.peakMb, peer?.peakMb ?? null),
});

const rateRow = (unit: string) => (ours: Standing, peer: Standing | null) => ({
  unit: `${unit}/s (more is better)`,
  ours: ours.units / ours.seconds,
  peer: peer === null ? null : peer.units / peer.seconds,
  ratio: ratioOf(ours.units / ours.seconds, peer === null ? null : peer.units / peer.seconds),
  ...(peer === null ? {} : { cpuRatio: peer.cpuSeconds / peer.units / (ours.cpuSeconds / ours.units) }),
});

/** Seconds of a step's first run beyond a usual one: tracing and compiling. */
const compileRow = (ours: Standing) => ({
  unit: "s first step − usual step (less is better)",
  ours: ours.facts.firstStepSeconds - ours.seconds,
  peer: null,
  ratio: null,
});

const trainStep: Benchmark = (options) =>
  duels(
    "train-step",
    "train-step",
    ["train_step"],
    [
      { model: "L4 d256 h4 V4096", text: "B8 T128", config: { batch: 8, length: 128 } },
      { model: "GPT-2 small", text: "B2 T128", config: { batch: 2, length: 128 } },
    ],
    options,
    (ours, peer) => [timeRow(ours, peer), memoryRow(ours, peer), compileRow(ours)],
  );

const ppoUpdate: Benchmark = (options) =>
  duels(
    "ppo-update",
    "ppo-update",
    ["ppo_update"],
    [
      {
        model: "L4 d256 h4 V4096",
        text: "B8 P64 R64",
        config: { batch: 8, promptTokens: 64, responseTokens: 64 },
      },
      {
        model: "GPT-2 small",
        text: "B2 P64 R64",
        config: { batch: 2, promptTokens: 64, responseTokens: 64 },
      },
    ],
    options,
    (ours, peer) => [timeRow(ours, peer), memoryRow(ours, peer)],
  );

const prefill: Benchmark = (options) =>
  duels(
    "prefill",
    "prefill",
    ["prefill"],
    [
      { model: "L4 d256 h4 V4096", text: "B8 P128", config: { batch: 8, promptTokens: 128 } },
      { model: "GPT-2 small", text: "B8 P128", config: { batch: 8, promptTokens: 128 } },
    ],
    options,
    (ours, peer) => [rateRow("prompt tokens")(ours, peer)],
  );

const decodeCase = (model: ModelName, batch: number): Case => ({
  model,
  text: `B${batch} P16 R112`,
  config: { batch, promptTokens: 16, responseTokens: 112 },
});

const decode: Benchmark = (options) =>
  duels(
    "decode",
    "decode",
    ["decode", "generate"],
    [
      decodeCase("L4 d256 h4 V4096", 8),
      decodeCase("L4 d256 h4 V4096", 32),
      decodeCase("GPT-2 small", 8),
      decodeCase("GPT-2 small", 32),
    ],
    options,
    (ours, peer) => [rateRow("tokens")(ours, peer), memoryRow(ours, peer)],
  );

/** Tracing and compiling a program that no bucket has compiled before. */
const compile: Benchmark = async function* ({ threads, rounds, only }) {
  for (const [model, shape] of Object.entries(MODELS)) {
    for (const what of ["gradient", "prefill", "decode"]) {
      const label = `${model} ${what}, ${threads} threads`;
      if (!label.includes(only)) continue;
      const [ours] = await contest([ourSide("compile", { ...shape, what, threads })], { rounds, warmups: 1 });
      yield {
        name: "compile",
        config: label,
        unit: "ms (less is better)",
        ours: ours.seconds * 1000,
        peer: null,
        peerName: what === "decode" ? "with its first step, which packs the weights" : "no peer",
        ratio: null,
      };
    }
  }
};

const growthOfCost: Benchmark = async function* (options) {
  for (const curve of CURVES) if (curve.name.includes(options.only)) yield* growth(curve, options);
};

/** Time per token of mixed lengths against that of full rows; 1 = padding costs nothing. */
const varlen: Benchmark = async function* ({ threads, rounds, only }) {
  const label = `L4 d256 h4 V4096 B16, lengths 16..256 against all 256, ${threads} threads`;
  if (!label.includes(only)) return;
  const batch = 16;
  const full = new Array<number>(batch).fill(256);
  const mixed = full.map((_, i) => Math.round(16 + (240 * i) / (batch - 1)));
  const shared = { ...MODELS["L4 d256 h4 V4096"], batch, length: 256, shards: 2, threads };
  const [ofMixed, ofFull] = await contest(
    [
      ourSide("train-step", { ...shared, lengths: mixed }, "mixed"),
      ourSide("train-step", { ...shared, lengths: full }, "full"),
    ],
    { rounds, warmups: 2 },
  );
  const tokens = (lengths: readonly number[]) => lengths.reduce((sum, length) => sum + length, 0);
  const ours = ofMixed.seconds / tokens(mixed) / (ofFull.seconds / tokens(full));
  const cpu = ofMixed.cpuSeconds / tokens(mixed) / (ofFull.cpuSeconds / tokens(full));
  yield {
    name: "varlen",
    config: label,
    unit: "time per token, mixed / full (less is better)",
    ours,
    peer: 1,
    peerName: "proportional to tokens",
    ratio: ours,
    cpuRatio: cpu,
  };
};

const GRADIENTS = { "13 MB": 13 * 2 ** 18, "500 MB": 500 * 2 ** 18 } as const;

/**
 * Summing one gradient over L learners on this machine, the product's three ways and both wires, against gloo; and what
 * encrypting the bulk channel costs.
 */
const allReduce: Benchmark = async function* ({ threads, rounds, only }) {
  for (const [size, elements] of Object.entries(GRADIENTS)) {
    for (const learners of [2, 4]) {
      const isSmallest = size === "13 MB" && learners === 2;
      for (const transport of ["grpc", "bulk", ...(isSmallest ? ["bulk-tls"] : []), "sharded"]) {
        for (const wire of ["f32", "bf16"]) {
          const label = `${size} L${learners} ${transport} ${wire}`;
          if (!label.includes(only)) continue;
          const config = { learners, elements, wire, transport, threads };
          const peer = peerSide("all_reduce", config);
          const sides = [ourSide("all-reduce", config), ...(peer === null ? [] : [peer])];
          // The first turn touches 500 MB for the first time; in 13 MB it is the compilers that take a few.
          const warmups = size === "500 MB" ? 1 : 10;
          const [ours, theirs = null] = await contest(sides, { rounds, warmups });
          yield {
            name: "allreduce",
            config: label,
            ...timeRow(ours, theirs),
            peerName: theirs?.version ?? NO_PEER,
          };
        }
      }
    }
  }
};

export const BENCHMARKS: Readonly<Record<string, Benchmark>> = {
  "train-step": trainStep,
  "ppo-update": ppoUpdate,
  "ppo-iteration": ppoIteration,
  "cluster-overhead": clusterOverhead,
  async: asynchronous,
  prefill,
  decode,
  varlen,
  allreduce: allReduce,
  compile,
  growth: growthOfCost,
  experience,
  weights,
};
