/** Benchmarks of the whole PPO iteration: against TRL's trainer, and of what it costs to spread it over processes. */
import type { BenchOptions, Benchmark } from "./benchmarks.js";
import { contest, ourSide, peerSide, type SideConfig, type Standing } from "./contest.js";
import { MODELS, NO_PEER } from "./models.js";
import { ratioOf } from "./row.js";

const CASES = [
  {
    model: "L4 d256 h4 V4096",
    work: { batch: 32, minibatch: 16, microShards: 2, promptTokens: 64, responseTokens: 64 },
  },
  {
    model: "GPT-2 small",
    work: { batch: 8, minibatch: 4, microShards: 2, promptTokens: 32, responseTokens: 32 },
  },
] as const;

function casesOf({ threads, only }: BenchOptions): { label: string; config: SideConfig }[] {
  return CASES.map(({ model, work }) => ({
    label: `${model} B${work.batch} minibatch ${work.minibatch} P${work.promptTokens} R${work.responseTokens}, ${threads} threads`,
    config: { ...MODELS[model], ...work, threads },
  })).filter(({ label }) => label.includes(only));
}

/**
 * Generate, score, one pass of updates: in one process, and as users run it, with a rollout worker and a learner of one
 * thread for each thread that the peer has.
 */
export const ppoIteration: Benchmark = async function* (options) {
  for (const { label, config } of casesOf(options)) {
    const cluster = { ...config, threads: 1, workers: options.threads };
    const peer = peerSide("ppo_iteration", config, "TRL");
    const sides = [
      ourSide("ppo-iteration", config),
      ourSide("cluster-iteration", cluster, "cluster"),
      ...(peer === null ? [] : [peer]),
    ];
    const [single, spread, theirs] = await contest(sides, { rounds: options.rounds, warmups: 1 });
    const row = { name: "ppo-iteration", peerName: theirs?.version ?? NO_PEER };
    const timed = (ours: Standing, unit: string) => ({
      ...row,
      config: label,
      unit,
      ours: ours.seconds * 1000,
      peer: theirs === undefined ? null : theirs.seconds * 1000,
      ratio: ratioOf(ours.seconds, theirs?.seconds ?? null),
    });
    yield {
      ...timed(single, "ms in one process (less is better)"),
      ...(theirs === undefined ? {} : { cpuRatio: single.cpuSeconds / theirs.cpuSeconds }),
    };
    yield timed(spread, `ms with ${options.threads}+${options.threads} workers (less is better)`);
    yield {
      ...row,
      config: label,
      unit: "MB peak in one process (less is better)",
      ours: single.peakMb,
      peer: theirs?.peakMb ?? null,
      ratio: ratioOf(single.peakMb, theirs?.peakMb ?? null),
    };
  }
};

/** One coordinator, one rollout worker and one learner against the same work in a single process. */
export const clusterOverhead: Benchmark = async function* (options) {
  for (const { label, config } of casesOf(options)) {
    const sides = [
      ourSide("cluster-iteration", { ...config, workers: 1 }, "cluster"),
      ourSide("ppo-iteration", config, "single"),
    ];
    const [cluster, single] = await contest(sides, { rounds: options.rounds, warmups: 1 });
    yield {
      name: "cluster-overhead",
      config: label,
      unit: "ms an iteration (less is better)",
      ours: cluster.seconds * 1000,
      peer: single.seconds * 1000,
      peerName: "the same work in one process",
      ratio: cluster.seconds / single.seconds,
    };
  }
};
