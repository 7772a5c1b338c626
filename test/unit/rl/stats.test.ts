import { describe, expect, it } from "vitest";
import { sequenceReward } from "../../../src/rl/rewards.js";
import { fitScoreNormalizer } from "../../../src/rl/score-normalizer.js";
import { experienceStats, explainedVariance, summarize } from "../../../src/rl/stats.js";
import { makeExperience } from "../../../src/rl/make-experience.js";
import { rollout } from "./fixtures.js";

describe("summarize", () => {
  it("gives mean, population deviation and extremes", () => {
    expect(summarize([1, 2, 3, 6])).toEqual({ mean: 3, deviation: Math.sqrt(3.5), min: 1, max: 6 });
    expect(() => summarize([])).toThrow(/no values/);
  });
});

describe("explainedVariance", () => {
  it("is 1 for a perfect critic, 0 for a constant one, negative for a worse one", () => {
    const returns = [1, 2, 3, 4];
    expect(explainedVariance(returns, returns)).toBe(1);
    expect(explainedVariance(returns, [7, 7, 7, 7])).toBe(0);
    expect(explainedVariance(returns, [4, 3, 2, 1])).toBe(-3);
    expect(explainedVariance([2, 2], [1, 2])).toBeNaN();
  });
});

describe("experienceStats", () => {
  it("computes each number from the experiences", () => {
    const options = {
      klCoef: 0.1,
      clipRewardValue: 5,
      gamma: 1,
      lam: 1,
      whitenAdvantages: false,
      eosGap: null,
      missingEosPenalty: 0,
      scoreShift: 0,
      scoreScale: 1,
    };
    const a = rollout(2, "a", {
      score: 1,
      logprobs: Float32Array.of(-1, -2),
      refLogprobs: Float32Array.of(-1.5, -2),
    });
    const b = rollout(1, "b", {
      score: 3,
      logprobs: Float32Array.of(-3),
      refLogprobs: Float32Array.of(-4),
      finishReason: "length",
    });
    const stats = experienceStats(makeExperience([a, b], options));
    expect(stats.experiences).toBe(2);
    expect(stats.score.mean).toBe(2);
    expect(stats.kl).toBeCloseTo((0.5 + 1) / 2, 6);
    expect(stats.klK3).toBeCloseTo((Math.exp(-0.5) - 0.5 + Math.exp(-1)) / 2, 6);
    expect(stats.rlhfReward).toBeCloseTo((1 - 0.05 + 3 - 0.1) / 2, 6);
    expect(stats.entropy).toBeCloseTo(2, 6);
    expect(stats.responseTokens.mean).toBe(1.5);
    expect(stats.eosFraction).toBe(0.5);
    expect(Number.isFinite(stats.explainedVariance)).toBe(true);
  });

  it("refuses an empty collection", () => {
    expect(() => experienceStats([])).toThrow(/no values/);
  });
});

describe("score normaliser", () => {
  it("brings the fitted scores to mean 0 and deviation 1", () => {
    const normalizer = fitScoreNormalizer([2, 4, 4, 4, 5, 5, 7, 9]);
    expect(normalizer).toEqual({ scoreShift: 5, scoreScale: 2 });
    const options = { ...normalizer, clipRewardValue: 5, missingEosPenalty: 0 };
    expect(sequenceReward(9, false, options)).toBe(2);
  });

  it("refuses scores that do not vary, too few, or not finite", () => {
    expect(() => fitScoreNormalizer([3, 3, 3])).toThrow(/does not tell answers apart/);
    expect(() => fitScoreNormalizer([3])).toThrow(/at least 2/);
    expect(() => fitScoreNormalizer([3, NaN])).toThrow(/score 1 is NaN/);
  });
});
