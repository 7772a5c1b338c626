import { beforeEach, describe, expect, it } from "vitest";
import { RetainedIds } from "../../../src/coordinator/core/index.js";
import { makeExperience } from "../../../src/rl/make-experience.js";
import type { Experience, ScoredRollout } from "../../../src/rl/types.js";
import type { MicroShard } from "../../../src/rpc/codec/shard.js";
import { ProximalPolicy } from "../../../src/stages/proximal-policy.js";
import { rollout } from "../rl/fixtures.js";

const SAMPLED = Math.log(0.25);
const CURRENT = Math.log(0.5);

/** Learners whose policy gives every token probability 1/2; what is asked for and stored is noted. */
class Recorder {
  readonly stored = new Map<string, unknown>();
  readonly asked: string[][] = [];
  readonly durable = { retained: new RetainedIds(), committedIteration: -1 };
  readonly host = { state: { durable: this.durable } };
  readonly signal = new AbortController().signal;
  readonly learners = {
    evaluate: (shards: readonly MicroShard[]) => {
      const rows = shards.flatMap((shard) => (shard.rows.kind === "ppo" ? shard.rows.rows : []));
      this.asked.push(rows.map((row) => (row as Experience).experienceId));
      const tokens = rows.reduce((sum, row) => sum + row.responseIds.length, 0);
      return Promise.resolve({ logprobs: new Float64Array(tokens).fill(CURRENT) });
    },
  };
  readonly results = {
    remember: async (name: string, compute: () => Promise<unknown>) => {
      if (!this.stored.has(name)) this.stored.set(name, await compute());
      return this.stored.get(name);
    },
    recall: (name: string) => Promise.resolve(this.stored.get(name)),
    namesIn: (folder: string) =>
      Promise.resolve([...this.stored.keys()].map((name) => name.slice(folder.length + 1))),
    forget: (name: string) => Promise.resolve(this.stored.delete(name)),
  };
}

const answer = (id: string, policyVersion: number, tokens: number): ScoredRollout =>
  rollout(tokens, id, {
    experienceId: id,
    policyVersion,
    logprobs: new Float32Array(tokens).fill(SAMPLED),
    refLogprobs: new Float32Array(tokens).fill(CURRENT - 1),
    values: new Float32Array(tokens),
    score: 0,
  });

describe("ProximalPolicy", () => {
  let run: Recorder;
  let proximal: ProximalPolicy;
  beforeEach(() => {
    run = new Recorder();
    proximal = new ProximalPolicy(run as unknown as ConstructorParameters<typeof ProximalPolicy>[0]);
  });

  it("asks the learners about stale answers only, and gives each token what they say of it", async () => {
    const rollouts = [answer("3/0/0", 3, 2), answer("3/1/0", 1, 3), answer("3/2/0", 2, 1)];
    const measured = await proximal.measure(3, 3, rollouts);
    expect(run.asked).toEqual([["3/2/0", "3/1/0"]]); // short ones first
    expect(measured.map(({ experienceId }) => experienceId)).toEqual(["3/0/0", "3/1/0", "3/2/0"]);
    expect(measured[0].proximalLogprobs).toBeUndefined();
    expect([...measured[1].proximalLogprobs!]).toEqual(new Array(3).fill(Math.fround(CURRENT)));
    expect([...measured[2].proximalLogprobs!]).toEqual([Math.fround(CURRENT)]);
    // π_prox / π_behav = 2 is the weight of each token; the penalty is β·(log 1/2 − (log 1/2 − 1)) = β.
    const [, made] = makeExperience(measured, {
      klCoef: 0.1,
      clipRewardValue: 5,
      gamma: 1,
      lam: 1,
      whitenAdvantages: false,
      eosGap: null,
      missingEosPenalty: 0,
      scoreShift: 0,
      scoreScale: 1,
    });
    expect(Math.exp(made.proximalLogprobs![0] - made.logprobs[0])).toBeCloseTo(2, 5);
    made.rewards.forEach((reward) => expect(reward).toBeCloseTo(-0.1, 6));
    [-0.3, -0.2, -0.1].forEach((advantage, i) => expect(made.advantages[i]).toBeCloseTo(advantage, 6));
  });

  it("is computed once: a repeated update gets the stored values though the policy has moved on", async () => {
    const rollouts = [answer("2/0/0", 0, 2)];
    const first = await proximal.measure(2, 2, rollouts);
    expect(await proximal.measure(2, 2, rollouts)).toEqual(first);
    expect(await proximal.recall(2, rollouts)).toEqual(first);
    expect(run.asked).toHaveLength(1);
  });

  it("leaves rollouts of an iteration that was trained without as they are", async () => {
    const rollouts = [answer("2/0/0", 0, 2)];
    expect(await proximal.recall(2, rollouts)).toEqual(rollouts);
  });

  it("forgets iterations that no step can need again", async () => {
    for (const iteration of [1, 2, 3])
      await proximal.measure(iteration, 9, [answer(`${iteration}/0/0`, 0, 1)]);
    run.durable.committedIteration = 2;
    run.durable.retained.add("2/0/0"); // no checkpoint covers it yet
    await proximal.prune();
    expect([...run.stored.keys()]).toEqual(["proximal/2", "proximal/3"]);
  });
});
