import { describe, expect, it } from "vitest";
import { TokenSampler, type Draw, type SamplingOptions } from "../../../src/rollout/sampling.js";
import { streamOf, uniformAt } from "../../../src/shared/rng.js";
import { SAMPLING } from "./tiny-models.js";

const LOGITS = Float32Array.of(2, 0.5, -1, 1.25, 0);
const plainDraw: Draw = { uniform: 0, seen: null, forbidden: [] };

/** Every token that some uniform reaches, with the log-probability reported for it and the measured frequency. */
function distribution(options: Partial<SamplingOptions>, draw: Partial<Draw> = {}, logits = LOGITS) {
  const sampler = new TokenSampler(logits.length);
  const counts = new Map<number, { count: number; logprob: number }>();
  const steps = 20_000;
  for (let i = 0; i < steps; i++) {
    const { token, logprob } = sampler.draw(
      logits,
      { ...SAMPLING, ...options },
      { ...plainDraw, ...draw, uniform: (i + 0.5) / steps },
    );
    const entry = counts.get(token) ?? { count: 0, logprob };
    if (logprob !== entry.logprob) throw new Error(`token ${token}: ${logprob} and ${entry.logprob}`);
    counts.set(token, { count: entry.count + 1, logprob });
  }
  return [...counts]
    .sort(([a], [b]) => a - b)
    .map(([token, { count, logprob }]) => ({ token, share: count / steps, logprob }));
}

function softmax(scores: readonly number[]): number[] {
  const weights = scores.map((score) => Math.exp(score));
  return weights.map((weight) => weight / weights.reduce((a, b) => a + b));
}

function expectDistribution(actual: ReturnType<typeof distribution>, expected: Record<number, number>) {
  expect(actual.map(({ token }) => token)).toEqual(Object.keys(expected).map(Number));
  for (const { token, share, logprob } of actual) {
    expect(Math.abs(share - expected[token])).toBeLessThan(1e-4); // a grid of 20,000 uniforms resolves 5e-5
    expect(Math.abs(logprob - Math.log(expected[token]))).toBeLessThan(1e-11); // the fast exponential is good to 2e-12
  }
}

describe("token sampler", () => {
  it("draws every token with its softmax probability and reports its logarithm", () => {
    expectDistribution(distribution({}), { ...softmax([2, 0.5, -1, 1.25, 0]) });
  });

  it("divides logits by the temperature first", () => {
    expectDistribution(distribution({ temperature: 0.5 }), { ...softmax([4, 1, -2, 2.5, 0]) });
  });

  it("top-k keeps k tokens and renormalises", () => {
    const [first, second] = softmax([2, 1.25]);
    expectDistribution(distribution({ topK: 2 }), { 0: first, 3: second });
  });

  it("top-k keeps ties with the k-th token, as transformers does", () => {
    const tied = Float32Array.of(1, 3, 1, 0);
    const [a, b] = softmax([1, 3, 1]);
    expectDistribution(distribution({ topK: 2 }, {}, tied), { 0: a, 1: b, 2: a });
  });

  it("top-k of the vocabulary or more cuts nothing", () => {
    for (const topK of [5, 6])
      expectDistribution(distribution({ topK }), { ...softmax([2, 0.5, -1, 1.25, 0]) });
  });

  it("top-p keeps a token exactly while the mass above it is below p", () => {
    const p = softmax([2, 0.5, -1, 1.25, 0]); // 0.545, 0.122, 0.027, 0.258, 0.074
    const [first, second, third] = softmax([2, 1.25, 0.5]);
    expectDistribution(distribution({ topP: p[0] + p[3] - 1e-9 }), {
      0: softmax([2, 1.25])[0],
      3: softmax([2, 1.25])[1],
    });
    expectDistribution(distribution({ topP: p[0] + p[3] + 1e-9 }), { 0: first, 1: third, 3: second });
    expectDistribution(distribution({ topP: 1e-6 }), { 0: 1 });
  });

  it("top-p is taken of what top-k left", () => {
    const [first] = softmax([2, 1.25]); // 0.679 of the two kept: alone enough for p = 0.6, though 0.545 of all
    expect(first).toBeGreaterThan(0.6);
    expectDistribution(distribution({ topK: 2, topP: 0.6 }), { 0: 1 });
  });

  it("repetition penalty divides positive and multiplies negative logits of seen tokens", () => {
    const seen = Uint8Array.of(1, 0, 1, 0, 0);
    expectDistribution(distribution({ repetitionPenalty: 2 }, { seen }), {
      ...softmax([1, 0.5, -2, 1.25, 0]),
    });
  });

  it("never draws a forbidden token", () => {
    const [b, c, e] = softmax([0.5, -1, 0]);
    expectDistribution(distribution({}, { forbidden: [0, 3] }), { 1: b, 2: c, 4: e });
  });

  it("greedy takes the highest logit, the lower id on a tie, with the full distribution's log-probability", () => {
    const logits = Float32Array.of(0, 2, 2, 1);
    const drawn = new TokenSampler(4).draw(
      logits,
      { ...SAMPLING, greedy: true, topK: 1 },
      { ...plainDraw, uniform: 0.99 },
    );
    expect(drawn.token).toBe(1);
    expect(drawn.logprob).toBeCloseTo(Math.log(softmax([0, 2, 2, 1])[1]), 12);
  });

  it("agrees with a sort on random logits for top-k with top-p", () => {
    const size = 211;
    const sampler = new TokenSampler(size);
    for (let trial = 0; trial < 200; trial++) {
      const stream = streamOf(`trial ${trial}`);
      const logits = Float32Array.from(
        { length: size },
        (_, i) => Math.round(80 * uniformAt(1, stream, i)) / 10,
      );
      const topK = trial % 3 === 0 ? 0 : 1 + Math.floor(60 * uniformAt(2, stream, 0));
      const topP = trial % 4 === 0 ? 1 : 0.05 + 0.9 * uniformAt(3, stream, 0);
      const order = [...logits.keys()].sort((a, b) => logits[b] - logits[a] || a - b);
      const kth = topK === 0 ? -Infinity : logits[order[topK - 1]];
      const kept = order.filter((id) => logits[id] >= kth);
      const shares = softmax(kept.map((id) => logits[id]));
      let above = 0;
      const nucleus = new Set(
        kept.filter((_, i) => (above += i === 0 ? 0 : shares[i - 1]) < topP || i === 0),
      );
      const total = [...nucleus].reduce((sum, id) => sum + Math.exp(logits[id]), 0);
      for (let i = 0; i < 20; i++) {
        const uniform = uniformAt(4, stream, i);
        const { token, logprob } = sampler.draw(
          logits,
          { ...SAMPLING, topK, topP },
          { ...plainDraw, uniform },
        );
        expect(nucleus.has(token)).toBe(true);
        expect(logprob).toBeCloseTo(logits[token] - Math.log(total), 9);
      }
    }
  });

  it.each([NaN, Infinity])("has no log-probability with %s among the logits", (bad) => {
    const sampler = new TokenSampler(3);
    for (const greedy of [false, true])
      expect(sampler.draw(Float32Array.of(0, bad, 1), { ...SAMPLING, greedy }, plainDraw).logprob).toBeNaN();
  });
});
