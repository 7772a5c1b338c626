import { describe, expect, it } from "vitest";
import { ppoUpdate } from "../../../src/coordinator/ppo-update.js";
import type { StepRequest } from "../../../src/coordinator/optimizer-steps.js";
import { intoRounds, leftOutOf, roundRequest, updatesOf } from "../../../src/coordinator/round-manifest.js";
import type { Experience } from "../../../src/rl/types.js";

const update = (ids: string[], isFinalUse = true, shardCount = 4) => ({
  experienceIds: ids,
  input: { iteration: 2 },
  isFinalUse,
  shardCount,
});

describe("a round's manifest", () => {
  it("has left out what a slow learner did not get to and a lost one trained, unless another minibatch had it", () => {
    const part = (workerId: string, share: number, ...experienceIds: string[]) => ({
      workerId,
      share,
      experienceIds,
    });
    const parts = [
      part("quick", 0.5, "a"),
      part("slow", 0.25, "b"),
      part("lost", 0.25, "c"),
      part("quick", 0.5, "d", "c"),
      part("slow", 0.25, "e", "a"),
      part("lost", 0.25, "f"),
    ];
    const trained = new Map([
      ["quick", 1],
      ["slow", 0.25],
    ]);
    expect(leftOutOf(parts, trained)).toEqual(["e", "f"]);
    expect(leftOutOf(parts, new Map(trained).set("slow", 0.5).set("lost", 0.5))).toEqual([]);
    expect(leftOutOf(parts, new Map())).toHaveLength(6);
  });

  it("has left out nothing that equal learners trained to the end, however their shares add up", () => {
    const thirds = Array.from({ length: 9 }, (_, i) => ({
      workerId: `l${i % 3}`,
      share: 1 / 3,
      experienceIds: [`${i}`],
    }));
    const whole = 1 / 3 + 1 / 3 + 1 / 3;
    const trained = new Map(["l0", "l1", "l2"].map((workerId) => [workerId, whole]));
    expect(leftOutOf(thirds, trained)).toEqual([]);
    expect(leftOutOf(thirds, trained.set("l1", 2 / 3))).toEqual(["7"]);
    // More learners than micro-shards: this one was given nothing.
    expect(leftOutOf([{ workerId: "l3", share: 0, experienceIds: [] }], new Map([["l3", 0]]))).toEqual([]);
  });

  it("gives back its minibatches in order, though it lists an experience of two epochs once", () => {
    const request = roundRequest([update(["a", "b"]), update(["c"], true, 1), update(["b", "a"])], 7, 30);
    expect(request).toMatchObject({
      step: 7,
      experienceIds: ["a", "b", "c"],
      shardCount: 4,
      isFinalUse: true,
    });
    const kept = JSON.parse(JSON.stringify(request)) as StepRequest;
    expect(updatesOf(kept)).toEqual([
      { experienceIds: ["a", "b"], input: { iteration: 2 }, optimizerStep: 30 },
      { experienceIds: ["c"], input: { iteration: 2 }, optimizerStep: 31 },
      { experienceIds: ["b", "a"], input: { iteration: 2 }, optimizerStep: 32 },
    ]);
  });

  it("takes as many minibatches as asked for, and never final uses together with others", () => {
    const sizes = (uses: boolean[], every: number) =>
      intoRounds(
        uses.map((isFinalUse) => ({ isFinalUse })),
        every,
      ).map((round) => round.length);
    expect(sizes([true, true, true, true, true], 2)).toEqual([2, 2, 1]);
    expect(sizes([false, false, false, true, true, true], 4)).toEqual([3, 3]);
    expect(sizes([false, false, true, true], 1)).toEqual([1, 1, 1, 1]);
  });
});

describe("the PPO update in rounds", () => {
  const experience = (experienceId: string) =>
    ({ experienceId, actionMask: Uint8Array.of(1, 1, 0) }) as unknown as Experience;
  const minibatches = [["a"], ["b"], ["c"]].map((ids) => ids.map(experience));
  const options = {
    iteration: 3,
    ppoEpochs: 2,
    seed: 1,
    stepsBefore: 10,
    klCoef: 0.1,
    shardCountOf: () => 1,
  };

  it("numbers rounds on from the run's steps and optimizer steps on from the minibatches before", async () => {
    const requests: StepRequest[] = [];
    const stats = await ppoUpdate(
      minibatches,
      async (request) => {
        requests.push(request);
        const { length } = updatesOf(request);
        return {
          outcome: "committed",
          sums: { policyLoss: length },
          firstSums: {},
          minibatches: length,
          computeMs: 0,
          allReduceMs: 0,
        };
      },
      { ...options, rounds: { every: 2, minibatchesBefore: 18 } },
    );
    expect(requests.map(({ step, isFinalUse }) => [step, isFinalUse])).toEqual([
      [11, false],
      [12, false],
      [13, true],
      [14, true],
    ]);
    expect(requests.flatMap(updatesOf).map(({ optimizerStep }) => optimizerStep)).toEqual([
      19, 20, 21, 22, 23, 24,
    ]);
    // Every experience meets its final use exactly once.
    expect(
      requests
        .filter(({ isFinalUse }) => isFinalUse)
        .flatMap(({ experienceIds }) => experienceIds)
        .sort(),
    ).toEqual(["a", "b", "c"]);
    expect(stats).toMatchObject({ optimizerSteps: 4, measuredSteps: 6, tokens: 12, sums: { policyLoss: 6 } });
  });

  it("counts what slow learners left out as not trained", async () => {
    const stats = await ppoUpdate(
      minibatches,
      async () => ({
        outcome: "committed",
        sums: { policyLoss: 1 },
        firstSums: {},
        minibatches: 1.5,
        computeMs: 0,
        allReduceMs: 0,
      }),
      { ...options, ppoEpochs: 1, rounds: { every: 3, minibatchesBefore: 0 } },
    );
    expect(stats).toMatchObject({ optimizerSteps: 1, measuredSteps: 1.5, tokens: 3 });
  });
});
