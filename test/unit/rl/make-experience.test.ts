import { describe, expect, it } from "vitest";
import { actionMaskOf } from "../../../src/rl/action-mask.js";
import { makeExperience, type ExperienceOptions } from "../../../src/rl/make-experience.js";
import { computeRewards, sequenceReward } from "../../../src/rl/rewards.js";
import { rollout } from "./fixtures.js";

const plain: ExperienceOptions = {
  klCoef: 0.1,
  clipRewardValue: 5,
  gamma: 1,
  lam: 0.95,
  whitenAdvantages: false,
  eosGap: null,
  missingEosPenalty: 0,
  scoreShift: 0,
  scoreScale: 1,
};

/** The same chain in plain loops, written from the formulas alone. */
function reference(r: ReturnType<typeof rollout>, o: ExperienceOptions) {
  const R = r.responseIds.length;
  let score = (r.score - o.scoreShift) / o.scoreScale;
  if (score > o.clipRewardValue) score = o.clipRewardValue;
  if (score < -o.clipRewardValue) score = -o.clipRewardValue;
  if (r.finishReason === "length") score -= o.missingEosPenalty;
  const rewards: number[] = [];
  for (let i = 0; i < R; i++) rewards.push(-o.klCoef * (r.logprobs[i] - r.refLogprobs[i]));
  rewards[R - 1] += score;
  const advantages = new Array<number>(R).fill(0);
  for (let i = 0; i < R; i++) {
    for (let l = i; l < R; l++) {
      const next = l + 1 < R ? r.values[l + 1] : 0;
      advantages[i] += (o.gamma * o.lam) ** (l - i) * (rewards[l] + o.gamma * next - r.values[l]);
    }
  }
  return { rewards, advantages, returns: advantages.map((a, i) => a + r.values[i]) };
}

describe("makeExperience", () => {
  it("equals the plain loops, token by token", () => {
    const options = {
      ...plain,
      scoreShift: 0.3,
      scoreScale: 0.5,
      missingEosPenalty: 0.7,
      lam: 0.9,
      gamma: 0.99,
    };
    const rollouts = [
      rollout(1, "one"),
      rollout(6, "six", { score: 40 }),
      rollout(9, "cut", { finishReason: "length", score: -2 }),
    ];
    makeExperience(rollouts, options).forEach((experience, b) => {
      const expected = reference(rollouts[b], options);
      for (const name of ["rewards", "advantages", "returns"] as const) {
        expect(experience[name]).toHaveLength(rollouts[b].responseIds.length);
        experience[name].forEach((x, i) => expect(x).toBeCloseTo(expected[name][i], 5));
      }
    });
  });

  it("puts the score on the last token, EOS included, and only there", () => {
    const [{ rewards }] = makeExperience([rollout(4, "r", { score: 2 })], { ...plain, klCoef: 0 });
    expect(Array.from(rewards, (x) => x + 0)).toEqual([0, 0, 0, 2]);
  });

  it("takes the KL penalty of a stale rollout from the policy at the start of the update", () => {
    // By hand, β 0.5, γ = λ = 1, V = 0: penalties −0.5·(−1 + 3) = −1 and −0.5·(−2 + 1) = 0.5, score 2.
    const stale = rollout(2, "stale", {
      logprobs: Float32Array.of(-4, -4), // what the policy that sampled it said: plays no part
      proximalLogprobs: Float32Array.of(-1, -2),
      refLogprobs: Float32Array.of(-3, -1),
      values: new Float32Array(2),
      score: 2,
    });
    const [made] = makeExperience([stale], { ...plain, klCoef: 0.5, lam: 1 });
    expect([...made.rewards]).toEqual([-1, 2.5]);
    expect([...made.advantages]).toEqual([1.5, 2.5]);
    expect([...made.logprobs]).toEqual([-4, -4]);
    expect([...made.proximalLogprobs!]).toEqual([-1, -2]);
  });

  it("whitens advantages over the whole batch and leaves returns alone", () => {
    const rollouts = [rollout(3, "a"), rollout(8, "b")];
    const raw = makeExperience(rollouts, plain);
    const whitened = makeExperience(rollouts, { ...plain, whitenAdvantages: true });
    const all = whitened.flatMap((e) => [...e.advantages]);
    expect(all.reduce((a, b) => a + b, 0)).toBeCloseTo(0, 5);
    expect(all.reduce((a, b) => a + b * b, 0) / all.length).toBeCloseTo(1, 5);
    expect(whitened.map((e) => e.returns)).toEqual(raw.map((e) => e.returns));
    // the same affine map for all tokens: order is kept across rows
    const flatRaw = raw.flatMap((e) => [...e.advantages]);
    const slope = (all[1] - all[0]) / (flatRaw[1] - flatRaw[0]);
    expect((all[10] - all[2]) / (flatRaw[10] - flatRaw[2])).toBeCloseTo(slope, 4);
  });

  it("a batch of one whitens to finite numbers", () => {
    const [{ advantages }] = makeExperience([rollout(1, "one")], { ...plain, whitenAdvantages: true });
    expect([...advantages]).toEqual([0]);
  });

  it("subtracts the missing-EOS penalty after clipping, from truncated answers only", () => {
    const options = { ...plain, missingEosPenalty: 1 };
    expect(sequenceReward(-40, true, options)).toBe(-6);
    expect(sequenceReward(-40, false, options)).toBe(-5);
    const [cut, ended] = makeExperience(
      [rollout(2, "x", { finishReason: "length" }), rollout(2, "x", { finishReason: "eos" })],
      options,
    );
    expect(ended.rewards[1] - cut.rewards[1]).toBeCloseTo(1, 6);
    expect(ended.rewards[0]).toBe(cut.rewards[0]);
  });

  it("names the experience and the entry that is empty, misaligned or not finite", () => {
    expect(() => makeExperience([rollout(0, "empty")], plain)).toThrow(
      /0\/0\/empty: the response has no tokens/,
    );
    expect(() => makeExperience([rollout(3, "short", { values: new Float32Array(2) })], plain)).toThrow(
      /0\/0\/short: values has 2 entries for 3/,
    );
    expect(() => makeExperience([rollout(2, "nan", { values: Float32Array.of(1, NaN) })], plain)).toThrow(
      /0\/0\/nan: values\[1\] is NaN/,
    );
    expect(() => makeExperience([rollout(2, "inf", { score: Infinity })], plain)).toThrow(
      /score is Infinity/,
    );
    expect(() => computeRewards(new Float32Array(0), new Float32Array(0), 1, 0.1)).toThrow(/no tokens/);
    expect(() => sequenceReward(1, false, { ...plain, scoreScale: 0 })).toThrow(/scoreScale/);
    expect(makeExperience([], plain)).toEqual([]);
  });
});

describe("the EOS gap of deepspeed-chat", () => {
  const EOS = 0;
  const answer = { responseIds: Int32Array.of(21, 22, 23, EOS), score: 3 };
  const gap = { ...plain, eosGap: { eosId: EOS, padId: EOS } };

  it("worked check: [a, b, c, EOS = PAD] gets the reward on EOS, where the action mask is 0", () => {
    const [experience] = makeExperience([rollout(4, "gap", answer)], { ...gap, klCoef: 0 });
    expect(Array.from(experience.rewards, (x) => x + 0)).toEqual([0, 0, 0, 3]);
    expect([...experience.actionMask]).toEqual([1, 1, 1, 0]);
  });

  it("still credits the tokens before EOS with the reward", () => {
    const values = new Float32Array(4);
    const [experience] = makeExperience([rollout(4, "gap", { ...answer, values })], { ...gap, klCoef: 0 });
    expect(experience.returns[0]).toBeCloseTo(3 * 0.95 ** 3, 6);
  });

  it("a full-width answer has no gap", () => {
    const [experience] = makeExperience([rollout(4, "full", { finishReason: "length" })], gap);
    expect([...experience.actionMask]).toEqual([1, 1, 1, 1]);
  });

  it("is closed by default and where EOS is not the pad id", () => {
    expect([...actionMaskOf(answer.responseIds, null)]).toEqual([1, 1, 1, 1]);
    expect([...actionMaskOf(answer.responseIds, { eosId: EOS, padId: 22 })]).toEqual([1, 1, 1, 1]);
  });

  it("whitening leaves the masked EOS out of the moments", () => {
    const [experience] = makeExperience([rollout(4, "gap", answer)], { ...gap, whitenAdvantages: true });
    const counted = [...experience.advantages.subarray(0, 3)];
    expect(counted.reduce((a, b) => a + b, 0)).toBeCloseTo(0, 5);
    expect(experience.advantages[3]).toBe(0);
  });

  it("a batch that is all masked cannot be whitened", () => {
    const onlyEos = rollout(1, "only", { responseIds: Int32Array.of(EOS) });
    expect(makeExperience([onlyEos], gap)[0].actionMask[0]).toBe(0);
    expect(() => makeExperience([onlyEos], { ...gap, whitenAdvantages: true })).toThrow(/0 counted tokens/);
  });
});
