import * as tf from "@tensorflow/tfjs";
import type { Tensor } from "@tensorflow/tfjs";
import { beforeAll, describe, expect, it } from "vitest";
import { lmLoss } from "../../../src/rl/lm-loss.js";
import { policyLoss } from "../../../src/rl/policy-loss.js";
import { endScoreLoss, negativeLogSigmoid, spanLoss } from "../../../src/rl/reward-loss.js";
import { valueLoss } from "../../../src/rl/value-loss.js";
import { normals, uniforms } from "./fixtures.js";

beforeAll(async () => {
  await tf.setBackend("cpu");
});

const B = 4;
const T = 9;
const N = B * T;
const CLIP = 0.2;
/** Rows of ones then zeros, of lengths 9, 1, 0 and 5. */
const mask = Float32Array.from({ length: N }, (_, i) => (i % T < [9, 1, 0, 5][Math.floor(i / T)] ? 1 : 0));
const TOKENS = 15;

const f32 = (values: ArrayLike<number>): Tensor => tf.tensor(Float32Array.from(values), [B, T]);
const scalarOf = (tensor: Tensor): number => tensor.dataSync()[0];

/** Central differences of a float64 loss by every entry of `at`. */
function finiteDifferences(loss: (x: number[]) => number, at: ArrayLike<number>): number[] {
  const h = 1e-6;
  return Array.from(at, (_, i) => {
    const moved = (by: number) => loss(Array.from(at, (x, j) => (j === i ? x + by : x)));
    return (moved(h) - moved(-h)) / (2 * h);
  });
}

/** Checks value and gradient of a tensor loss against a float64 plain-loop one. float32 rounding of O(1) terms: 1e-6. */
function expectSameLoss(
  tensorLoss: (x: Tensor) => Tensor,
  plainLoss: (x: ArrayLike<number>) => number,
  at: Float32Array,
) {
  const { value, grad } = tf.valueAndGrad((x: Tensor) => tensorLoss(x) as tf.Scalar)(f32(at));
  expect(scalarOf(value)).toBeCloseTo(plainLoss(at), 6);
  const gradient = grad.dataSync();
  const expected = finiteDifferences(plainLoss, at);
  expect(Math.max(...expected.map(Math.abs))).toBeGreaterThan(0.005);
  expected.forEach((slope, i) => expect(Math.abs(gradient[i] - slope), `entry ${i}`).toBeLessThan(2e-6));
}

const oldLogprobs = normals(N, "old").map((x) => -Math.abs(x) - 0.1);
const logprobs = oldLogprobs.map((x, i) => x + 0.6 * normals(N, "move")[i]); // far enough for both clips to act
const advantages = normals(N, "advantages");
const values = normals(N, "values");
const oldValues = values.map((v, i) => v + 0.4 * normals(N, "old values")[i]);
const returns = normals(N, "returns", 2);

const clamp = (x: number, low: number, high: number) => Math.min(Math.max(x, low), high);

function plainPolicyLoss(x: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < N; i++) {
    if (mask[i] === 0) continue;
    const ratio = Math.exp(x[i] - oldLogprobs[i]);
    sum += Math.max(-advantages[i] * ratio, -advantages[i] * clamp(ratio, 1 - CLIP, 1 + CLIP));
  }
  return sum / TOKENS;
}

function plainValueLoss(x: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < N; i++) {
    if (mask[i] === 0) continue;
    const clipped = clamp(x[i], oldValues[i] - CLIP, oldValues[i] + CLIP);
    sum += Math.max((x[i] - returns[i]) ** 2, (clipped - returns[i]) ** 2);
  }
  return (0.5 * sum) / TOKENS;
}

const policyInput = (x: Tensor, m = mask) => ({
  logprobs: x,
  oldLogprobs: f32(oldLogprobs),
  advantages: f32(advantages),
  mask: f32(m),
  denominator: tf.scalar(TOKENS),
});
const valueInput = (x: Tensor, m = mask) => ({
  values: x,
  oldValues: f32(oldValues),
  returns: f32(returns),
  mask: f32(m),
  denominator: tf.scalar(TOKENS),
});

describe("policyLoss", () => {
  it("equals the plain loop, and its gradient equals finite differences", () => {
    expectSameLoss((x) => policyLoss(policyInput(x), { cliprange: CLIP }).loss, plainPolicyLoss, logprobs);
  });

  it("at step 0 has ratio 1, nothing clipped, and loss −mean(advantage)", () => {
    const { loss, sums } = policyLoss(policyInput(f32(oldLogprobs)), { cliprange: CLIP });
    const meanAdvantage = advantages.reduce((sum, a, i) => sum + a * mask[i], 0) / TOKENS;
    expect(scalarOf(loss)).toBeCloseTo(-meanAdvantage, 6);
    expect(scalarOf(sums.tokens)).toBe(TOKENS);
    expect(scalarOf(sums.ratioSum)).toBe(TOKENS);
    expect(scalarOf(sums.ratioSquaredSum)).toBe(TOKENS);
    for (const name of ["clipFracSum", "approxKlSum", "absLogRatioSum"] as const)
      expect(scalarOf(sums[name])).toBe(0);
  });

  it("at step 0 the gradient of every counted token is −advantage / denominator", () => {
    const gradient = tf.grad((x: Tensor) => policyLoss(policyInput(x), { cliprange: CLIP }).loss)(
      f32(oldLogprobs),
    );
    gradient.dataSync().forEach((g, i) => expect(g).toBeCloseTo((-advantages[i] * mask[i]) / TOKENS, 7));
  });

  it("gives no gradient to a token whose ratio left the clip range in its advantage's direction", () => {
    const one = (logRatio: number, advantage: number) =>
      tf
        .grad(
          (x: Tensor) =>
            policyLoss(
              {
                logprobs: x,
                oldLogprobs: tf.tensor([-1]),
                advantages: tf.tensor([advantage]),
                mask: tf.tensor([1]),
                denominator: tf.scalar(1),
              },
              { cliprange: CLIP },
            ).loss,
        )(tf.tensor([-1 + logRatio]))
        .dataSync()[0];
    expect(one(0.5, 1)).toBe(0);
    expect(one(-0.5, -1)).toBe(0);
    expect(one(-0.5, 1)).toBeCloseTo(-Math.exp(-0.5), 6);
    expect(one(0.5, -1)).toBeCloseTo(Math.exp(0.5), 6);
  });

  it.each([
    // ratio, advantage, loss: the clip binds on the side that the advantage pushes to, and only there
    [1.3, 1, -1.2],
    [1.3, -1, 1.3],
    [0.7, 1, -0.7],
    [0.7, -1, 0.8],
    [1.1, 1, -1.1],
  ])("of one token with ratio %d and advantage %d is %d", (ratio, advantage, expected) => {
    const { loss } = policyLoss(
      {
        logprobs: tf.tensor([Math.log(ratio) - 2]),
        oldLogprobs: tf.tensor([-2]),
        advantages: tf.tensor([advantage]),
        mask: tf.tensor([1]),
        denominator: tf.scalar(1),
      },
      { cliprange: CLIP },
    );
    expect(scalarOf(loss)).toBeCloseTo(expected, 6);
  });

  it("its sums are what their names say", () => {
    const { sums } = policyLoss(policyInput(f32(logprobs)), { cliprange: CLIP });
    const counted = [...mask.keys()].filter((i) => mask[i] === 1);
    const logRatios = counted.map((i) => logprobs[i] - oldLogprobs[i]);
    const total = (of: (logRatio: number, i: number) => number) =>
      logRatios.reduce((sum, logRatio, k) => sum + of(logRatio, counted[k]), 0);
    const isClipped = (logRatio: number, i: number) =>
      advantages[i] > 0 ? Math.exp(logRatio) > 1 + CLIP : Math.exp(logRatio) < 1 - CLIP;
    expect(scalarOf(sums.clipFracSum)).toBe(total((l, i) => Number(isClipped(l, i))));
    expect(scalarOf(sums.clipFracSum)).toBeGreaterThan(1);
    expect(scalarOf(sums.approxKlSum)).toBeCloseTo(
      total((l) => Math.exp(l) - 1 - l),
      5,
    );
    expect(scalarOf(sums.ratioSum)).toBeCloseTo(total(Math.exp), 5);
    expect(scalarOf(sums.absLogRatioSum)).toBeCloseTo(total(Math.abs), 5);
  });

  it("ignores masked entries, whatever finite numbers they hold", () => {
    const garbage = logprobs.map((x, i) => (mask[i] === 1 ? x : 60));
    const [clean, dirty] = [logprobs, garbage].map((x) =>
      policyLoss(policyInput(f32(x)), { cliprange: CLIP }),
    );
    expect(scalarOf(dirty.loss)).toBe(scalarOf(clean.loss));
    expect(scalarOf(dirty.sums.ratioSum)).toBe(scalarOf(clean.sums.ratioSum));
  });

  it("of an all-masked shard is 0 with zero gradient, so padding shards add nothing", () => {
    const { value, grad } = tf.valueAndGrad(
      (x: Tensor) => policyLoss(policyInput(x, new Float32Array(N)), { cliprange: CLIP }).loss,
    )(f32(logprobs));
    expect(scalarOf(value) + 0).toBe(0);
    expect(grad.dataSync().every((g) => g === 0)).toBe(true);
  });

  it("shards add up to the whole batch under the global denominator, and a shift by one token is noticed", () => {
    const shard = (b: number, shift: number) => {
      const row = (x: Float32Array) => tf.tensor(x.slice(b * T, (b + 1) * T), [1, T]);
      const shifted = Float32Array.from({ length: N }, (_, i) => advantages[Math.min(i + shift, N - 1)]);
      return scalarOf(
        policyLoss(
          {
            logprobs: row(logprobs),
            oldLogprobs: row(oldLogprobs),
            advantages: row(shifted),
            mask: row(mask),
            denominator: tf.scalar(TOKENS),
          },
          { cliprange: CLIP },
        ).loss,
      );
    };
    const sum = (shift: number) => [0, 1, 2, 3].reduce((total, b) => total + shard(b, shift), 0);
    expect(sum(0)).toBeCloseTo(plainPolicyLoss(logprobs), 6);
    expect(Math.abs(sum(1) - plainPolicyLoss(logprobs))).toBeGreaterThan(0.01);
  });
});

describe("valueLoss", () => {
  it("equals the plain loop, and its gradient equals finite differences", () => {
    expectSameLoss((x) => valueLoss(valueInput(x), { cliprangeValue: CLIP }).loss, plainValueLoss, values);
  });

  it.each([
    // V_old 1; value, return, loss = ½·max of both squared errors
    [1.5, 2, 0.32], // clipped to 1.2: the clipped error is larger
    [1.5, 1.2, 0.045], // moved past the return: the unclipped error is larger
    [0.5, 0, 0.32],
    [1.1, 2, 0.405],
  ])("of one token with value %d and return %d is %d", (value, target, expected) => {
    const { loss } = valueLoss(
      {
        values: tf.tensor([value]),
        oldValues: tf.tensor([1]),
        returns: tf.tensor([target]),
        mask: tf.tensor([1]),
        denominator: tf.scalar(1),
      },
      { cliprangeValue: CLIP },
    );
    expect(scalarOf(loss)).toBeCloseTo(expected, 6);
  });

  it("is ½·mean squared error before the first update, and never below it after", () => {
    const half = (x: Float32Array) =>
      x.reduce((sum, v, i) => sum + 0.5 * mask[i] * (v - returns[i]) ** 2, 0) / TOKENS;
    expect(scalarOf(valueLoss(valueInput(f32(oldValues)), { cliprangeValue: CLIP }).loss)).toBeCloseTo(
      half(oldValues),
      5,
    );
    expect(scalarOf(valueLoss(valueInput(f32(values)), { cliprangeValue: CLIP }).loss)).toBeGreaterThan(
      half(values),
    );
  });

  it("its sums are what their names say", () => {
    const { sums } = valueLoss(valueInput(f32(values)), { cliprangeValue: CLIP });
    const total = (of: (i: number) => number) => mask.reduce((sum, m, i) => sum + (m === 1 ? of(i) : 0), 0);
    expect(scalarOf(sums.valueErrorSum)).toBeCloseTo(
      total((i) => (values[i] - returns[i]) ** 2),
      4,
    );
    expect(scalarOf(sums.valueSum)).toBeCloseTo(
      total((i) => values[i]),
      5,
    );
    expect(scalarOf(sums.returnSum)).toBeCloseTo(
      total((i) => returns[i]),
      5,
    );
    expect(scalarOf(sums.returnSquaredSum)).toBeCloseTo(
      total((i) => returns[i] ** 2),
      4,
    );
    const isClipped = (i: number) => {
      const clipped = clamp(values[i], oldValues[i] - CLIP, oldValues[i] + CLIP);
      return Number((clipped - returns[i]) ** 2 > (values[i] - returns[i]) ** 2);
    };
    const movedOut = total((i) => (Math.abs(values[i] - oldValues[i]) > CLIP ? isClipped(i) : 0));
    expect(movedOut).toBeGreaterThan(1);
    // inside the range both errors are equal up to rounding, either may win
    expect(scalarOf(sums.valueClipFracSum)).toBeGreaterThanOrEqual(movedOut);
    expect(scalarOf(sums.valueClipFracSum)).toBeLessThanOrEqual(
      movedOut + total((i) => Number(Math.abs(values[i] - oldValues[i]) <= CLIP)),
    );
  });
});

describe("lmLoss", () => {
  const plain = (coef: number) => (x: ArrayLike<number>) => {
    let sum = 0;
    for (let i = 0; i < N; i++) sum -= mask[i] * x[i];
    return (coef * sum) / TOKENS;
  };

  it.each([1, 27.8])("equals the plain loop, and its gradient finite differences, at coef %d", (coef) => {
    const loss = (x: Tensor) =>
      lmLoss({ logprobs: x, mask: f32(mask), denominator: tf.scalar(TOKENS) }, coef).loss;
    const { value, grad } = tf.valueAndGrad((x: Tensor) => loss(x))(f32(logprobs));
    expect(scalarOf(value) / coef).toBeCloseTo(plain(1)(logprobs), 5);
    grad.dataSync().forEach((g, i) => expect(g + 0).toBeCloseTo((-coef * mask[i]) / TOKENS, 5));
  });
});

describe("negativeLogSigmoid", () => {
  it("equals −log σ(x) where that can be computed, and stays finite beyond", () => {
    const xs = [-1000, -50, -3, -1e-3, 0, 1e-3, 3, 50, 1000];
    const got = negativeLogSigmoid(tf.tensor(xs)).dataSync();
    xs.forEach((x, i) => expect(got[i]).toBeCloseTo(x < -30 ? -x : Math.log1p(Math.exp(-x)), 5));
  });

  it("has the gradient −σ(−x), also at 0 where untrained models stand", () => {
    const xs = [-1000, -3, 0, 3, 1000];
    const got = tf
      .grad((x: Tensor) => negativeLogSigmoid(x))(tf.tensor(xs))
      .dataSync();
    xs.forEach((x, i) => expect(got[i]).toBeCloseTo(-1 / (1 + Math.exp(x)), 6));
  });
});

describe("endScoreLoss and spanLoss", () => {
  const pairs = B;
  const pairMask = [1, 1, 0, 1];
  const chosen = normals(pairs, "chosen");
  const rejected = normals(pairs, "rejected");
  const vector = (x: ArrayLike<number>) => tf.tensor(Float32Array.from(x));
  const endScores = (c: Tensor, r: Tensor) =>
    endScoreLoss({ chosenScores: c, rejectedScores: r, mask: vector(pairMask), denominator: tf.scalar(3) });

  it("end-score: equals the plain loop, and its gradient equals finite differences", () => {
    const plain = (c: ArrayLike<number>) =>
      pairMask.reduce((sum, m, b) => sum + m * Math.log1p(Math.exp(rejected[b] - c[b])), 0) / 3;
    const { value, grad } = tf.valueAndGrad((c: Tensor) => endScores(c, vector(rejected)).loss)(
      vector(chosen),
    );
    expect(scalarOf(value)).toBeCloseTo(plain(chosen), 6);
    const gradient = grad.dataSync();
    finiteDifferences(plain, chosen).forEach((slope, b) => expect(gradient[b]).toBeCloseTo(slope, 6));
  });

  it("end-score: starts at ln 2 when scores are equal, and ties count as wrong", () => {
    const { loss, sums } = endScores(vector(chosen), vector(chosen));
    expect(scalarOf(loss)).toBeCloseTo(Math.LN2, 6);
    expect(scalarOf(sums.correctSum)).toBe(0);
    expect(scalarOf(sums.pairs)).toBe(3);
  });

  it("end-score: counts pairs whose chosen answer scores higher", () => {
    const { sums } = endScores(vector([1, 2, 9, 0]), vector([0, 3, 0, -1]));
    expect(scalarOf(sums.correctSum)).toBe(2);
    expect([scalarOf(sums.chosenScoreSum), scalarOf(sums.rejectedScoreSum)]).toEqual([3, 2]);
  });

  it("span: equals the plain loop over each pair's span, and its gradient equals finite differences", () => {
    const spans = [
      [2, 7],
      [8, 9],
      [0, 0],
      [1, 9],
    ];
    const rejectedRewards = normals(N, "rejected tokens");
    const plain = (c: ArrayLike<number>) => {
      let total = 0;
      spans.forEach(([start, end], b) => {
        let sum = 0;
        for (let t = start; t < end; t++)
          sum += Math.log1p(Math.exp(rejectedRewards[b * T + t] - c[b * T + t]));
        if (end > start) total += sum / (end - start);
      });
      return total / 3;
    };
    const weights = Float32Array.from({ length: N }, (_, i) => {
      const [start, end] = spans[Math.floor(i / T)];
      return i % T >= start && i % T < end ? 1 / (end - start) : 0;
    });
    expectSameLoss(
      (c) =>
        spanLoss({
          chosenRewards: c,
          rejectedRewards: f32(rejectedRewards),
          spanWeights: f32(weights),
          denominator: tf.scalar(3),
        }),
      plain,
      normals(N, "chosen tokens"),
    );
  });
});

describe("Bradley-Terry with known latent rewards", () => {
  it("the loss at the true rewards is the entropy floor, and every other scale is worse", () => {
    // Expected loss over labels: σ(Δ)·ℓ(sΔ) + σ(−Δ)·ℓ(−sΔ), smallest at s = 1 where it is H(σ(Δ)).
    const deltas = normals(64, "deltas", 2);
    const sigma = (x: number) => 1 / (1 + Math.exp(-x));
    const expectedLoss = (scale: number) => {
      const of = (sign: number) =>
        negativeLogSigmoid(tf.tensor(deltas.map((d) => sign * scale * d))).dataSync();
      const [right, wrong] = [of(1), of(-1)];
      return (
        deltas.reduce((sum, d, i) => sum + sigma(d) * right[i] + sigma(-d) * wrong[i], 0) / deltas.length
      );
    };
    const entropy = (p: number) => -p * Math.log(p) - (1 - p) * Math.log(1 - p);
    const floor = deltas.reduce((sum, d) => sum + entropy(sigma(d)), 0) / deltas.length;
    expect(expectedLoss(1)).toBeCloseTo(floor, 5);
    for (const scale of [0.5, 0.9, 1.1, 2]) expect(expectedLoss(scale)).toBeGreaterThan(floor + 1e-4);
  });

  it("the best accuracy over sampled labels is E[σ(|Δ|)]", () => {
    const deltas = normals(20_000, "many deltas", 2);
    const draws = uniforms(20_000, "labels");
    const sigma = (x: number) => 1 / (1 + Math.exp(-x));
    const ceiling = deltas.reduce((sum, d) => sum + sigma(Math.abs(d)), 0) / deltas.length;
    const signed = deltas.map((d, i) => (draws[i] < sigma(d) ? d : -d)); // chosen minus rejected under sampled labels
    const { sums } = endScoreLoss({
      chosenScores: tf.tensor(signed),
      rejectedScores: tf.zeros([signed.length]),
      mask: tf.ones([signed.length]),
      denominator: tf.scalar(signed.length),
    });
    // standard error √(0.75·0.25/20000) = 0.003
    expect(Math.abs(scalarOf(sums.correctSum) / signed.length - ceiling)).toBeLessThan(0.01);
  });
});
