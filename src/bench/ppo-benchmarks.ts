/**
 * Benchmarks of the whole PPO iteration: against TRL's trainer, of what it costs to spread it over processes, and of what
 * collecting the next experience while training gains.
 */
import type { BenchOptions, Benchmark } from "./benchmarks.js";
import { contest, fastestOf, ourSide, peerSides, type SideConfig, type Standing } from "./contest.js";
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
    const sides = [
      ourSide("ppo-iteration", config),
      ourSide("cluster-iteration", cluster, "cluster"),
      ...peerSides("ppo_iteration", config, "TRL"),
    ];
    const [single, spread, ...peers] = await contest(sides, { rounds: options.rounds, warmups: 1 });
    const theirs = fastestOf(peers);
    const row = { name: "ppo-iteration", peerName: theirs?.version ?? NO_PEER };
    const timed = (ours: Standing, unit: string) => ({
      ...row,
      config: label,
      unit,
      ours: ours.seconds * 1000,
      peer: theirs === null ? null : theirs.seconds * 1000,
      ratio: ratioOf(ours.seconds, theirs?.seconds ?? null),
    });
    yield {
      ...timed(single, "ms in one process (less is better)"),
      ...(theirs === null ? {} : { cpuRatio: single.cpuSeconds / theirs.cpuSeconds }),
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

/** Chosen so that collecting takes about as long as training, where overlapping them can gain most. */
const ASYNC_CASE = {
  model: "L4 d256 h4 V4096",
  work: { batch: 16, minibatch: 8, microShards: 1, promptTokens: 64, responseTokens: 64, ppoEpochs: 1 },
} as const;

/**
 * `ppo.staleness` 1 against 0: one coordinator, one rollout worker and one learner of one thread each, whatever
 * `--threads` says. The asynchronous side pays for its correction (`ppo.importance: decoupled`, the default). Rates are
 * over the total time of the measured iterations, since a median of overlapping iterations can hide a stall.
 */
export const asynchronous: Benchmark = async function* ({ rounds, only }) {
  const { model, work } = ASYNC_CASE;
  const { batch, minibatch, promptTokens, responseTokens, ppoEpochs } = work;
  const label = `${model} B${batch} minibatch ${minibatch} P${promptTokens} R${responseTokens} epochs ${ppoEpochs}, 1+1 workers`;
  if (!label.includes(only)) return;
  const config = { ...MODELS[model], ...work, threads: 1, workers: 1 };
  const sides = [
    ourSide("cluster-iteration", { ...config, staleness: 1 }, "asynchronous"),
    ourSide("cluster-iteration", { ...config, staleness: 0 }, "synchronous"),
  ];
  const [ahead, inTurn] = await contest(sides, { rounds, warmups: 0 });
  const row = (unit: string, ours: number, peer: number, peerName: string) => ({
    name: "async",
    config: label,
    unit,
    ours,
    peer,
    peerName,
    ratio: ratioOf(ours, peer),
  });
  const rate = ({ facts }: Standing) => batch / facts.iterationSeconds;
  const wait = ({ facts }: Standing) => facts.rolloutSeconds;
  const update = ({ facts }: Standing) => facts.updateSeconds;
  const rest = (side: Standing) => side.facts.iterationSeconds - wait(side) - update(side);
  yield row("experiences/s (more is better)", rate(ahead), rate(inTurn), "ppo.staleness 0");
  yield row("s training waits for experience (less is better)", wait(ahead), wait(inTurn), "ppo.staleness 0");
  yield row("s of optimizer steps (less is better)", update(ahead), update(inTurn), "ppo.staleness 0");
  yield row(
    "s of correction, publishing, the rest (less is better)",
    rest(ahead),
    rest(inTurn),
    "ppo.staleness 0",
  );
  yield row(
    "s collecting, staleness 0 (ratio 1: most to gain)",
    wait(inTurn),
    update(inTurn),
    "s of its optimizer steps",
  );
  yield {
    ...row("versions the trained experience is behind", ahead.facts.staleness, 0, "at most ppo.staleness, 1"),
    peer: null,
    ratio: null,
  };
};
