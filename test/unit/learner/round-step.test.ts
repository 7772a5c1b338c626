import { afterAll, describe, expect, it } from "vitest";
import { LearnerCompute } from "../../../src/learner/learner-compute.js";
import type { Vote } from "../../../src/learner/optimizer-step.js";
import {
  RoundFeed,
  roundStep,
  type RoundDependencies,
  type RoundReport,
} from "../../../src/learner/round-step.js";
import { denominatorOf } from "../../../src/learner/shards.js";
import type { OuterStepRequest } from "../../../src/learner/parameter-round.js";
import { TroupeError } from "../../../src/shared/errors.js";
import { sftRows, sftSettings, shardsOf } from "./fixtures.js";

const opened: LearnerCompute[] = [];
afterAll(() => Promise.all(opened.map((learner) => learner.close())));

const KEY = { generation: 4, step: 1 };
const rows = { kind: "sft", rows: sftRows(4) } as const;
const update = (optimizerStep: number, learningRate = 0.02) => ({
  ...KEY,
  shards: shardsOf(rows, 2),
  shardCount: 2,
  denominators: { main: denominatorOf(rows), ptx: 0 },
  learningRates: { model: learningRate },
  optimizerStep,
  timeLimitMs: 60_000,
});

/** A round of a learner that computes for real, in this thread, and is the only one in the sum. */
async function soloRound(
  count: number,
  during: (feed: RoundFeed, abort: AbortController, done: number) => void,
  isCutOff = false,
) {
  const round = { outerLearningRate: 1, outerMomentum: 0, averageMoments: true };
  const learner = await LearnerCompute.open({ ...sftSettings, round });
  opened.push(learner);
  const calls = {
    innerStep: learner.round.innerStep.bind(learner.round),
    contribution: learner.round.contribution.bind(learner.round),
    rollBack: learner.round.rollBack.bind(learner.round),
    outerStep: learner.outerStep.bind(learner),
  } as unknown as Record<string, (argument: unknown) => Promise<unknown>>;
  const start = await learner.stateSha256();
  const feed = new RoundFeed(count);
  const abort = new AbortController();
  const reports: RoundReport[] = [];
  const votes: Vote[] = [];
  const held: OuterStepRequest[] = [];
  let done = 0;
  const dependencies = {
    compute: { run: (name: string, argument: unknown) => calls[name](argument) },
    shardGradients: { watch: (_step: number, _limitMs: number, work: Promise<unknown>) => work },
    sync: {
      allReduce: (_key: unknown, [node]: { gradients: Float32Array }[]) =>
        Promise.resolve({ values: node.gradients, isFinite: true, hash: 1 }),
    },
    feed,
    signal: abort.signal,
    trained: () => during(feed, abort, ++done),
    report: (report: RoundReport) => {
      reports.push(report);
      feed.average.resolve({ node: { level: 0, index: 0 }, weight: 1, timeLimitMs: 60_000 });
    },
    vote: (vote: Vote, outer?: OuterStepRequest) => {
      votes.push(vote);
      if (outer !== undefined) held.push(outer);
      if (isCutOff) return Promise.reject(new TroupeError("CANCELLED", "the coordinator is away"));
      return Promise.resolve(vote.isFinite ? "apply" : "skip");
    },
  } as unknown as RoundDependencies;
  const isAtStart = async () => (await learner.stateSha256()) === start;
  return { feed, run: () => roundStep(KEY, dependencies), reports, votes, isAtStart, learner, held };
}

describe("a learner's round", () => {
  it("trains all of its minibatches, reports, votes and moves", async () => {
    const { feed, run, reports, votes, isAtStart } = await soloRound(3, () => undefined);
    for (const step of [1, 2, 3]) feed.push(update(step));
    const norms = await run();
    expect(norms!.model).toBeGreaterThan(0);
    expect(reports).toMatchObject([{ ...KEY, minibatches: 3 }]);
    expect(votes).toMatchObject([{ ...KEY, isFinite: true }]);
    // Two shards of the first minibatch, and two for all later ones.
    expect(votes[0].stats.map(({ shard, values }) => [shard, values.rows])).toEqual([
      [0, 2],
      [1, 2],
      [2, 4],
      [3, 4],
    ]);
    expect(await isAtStart()).toBe(false);
  });

  it("that is told to stop contributes what it has", async () => {
    const { feed, run, reports, isAtStart } = await soloRound(5, (open, _abort, done) => {
      if (done === 2) open.stop();
    });
    for (const step of [1, 2, 3]) feed.push(update(step)); // two more never come
    await run();
    expect(reports).toMatchObject([{ minibatches: 2 }]);
    expect(await isAtStart()).toBe(false);
  });

  it("that is given up leaves the parameters of its start", async () => {
    const { feed, run, reports, isAtStart } = await soloRound(3, (_feed, abort, done) => {
      if (done === 2) abort.abort(new TroupeError("CANCELLED", "a member was lost"));
    });
    for (const step of [1, 2]) feed.push(update(step)); // it waits for the third
    await expect(run()).rejects.toThrow("a member was lost");
    expect(reports).toEqual([]);
    expect(await isAtStart()).toBe(true);
  });

  it("whose decision is not heard leaves its start, and the vote it keeps leads where the others went", async () => {
    const heard = await soloRound(2, () => undefined);
    const cutOff = await soloRound(2, () => undefined, true);
    for (const { feed } of [heard, cutOff]) for (const step of [1, 2]) feed.push(update(step));
    await heard.run();
    await expect(cutOff.run()).rejects.toThrow("the coordinator is away");
    expect(cutOff.votes[0].digest).toBe(heard.votes[0].digest);
    expect(await cutOff.isAtStart()).toBe(true);
    await cutOff.learner.outerStep(cutOff.held[0]);
    expect(await cutOff.learner.stateSha256()).toBe(await heard.learner.stateSha256());
  });

  it("whose parameters run away votes not finite, and is skipped without a trace", async () => {
    const { feed, run, votes, isAtStart } = await soloRound(3, () => undefined);
    for (const step of [1, 2, 3]) feed.push(update(step, 1e38));
    expect(await run()).toBeUndefined();
    expect(votes).toMatchObject([{ isFinite: false }]);
    expect(await isAtStart()).toBe(true);
  });
});
