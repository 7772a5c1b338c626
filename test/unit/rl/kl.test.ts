import { describe, expect, it } from "vitest";
import { sequenceKl, tokenKl, type KlEstimator } from "../../../src/rl/kl.js";
import { normals } from "./fixtures.js";

const softmax = (logits: Float32Array): number[] => {
  const exps = Array.from(logits, Math.exp);
  const sum = exps.reduce((a, b) => a + b, 0);
  return exps.map((x) => x / sum);
};

/** Two distributions over 6 tokens that differ visibly. */
const policy = softmax(normals(6, "policy"));
const ref = softmax(normals(6, "ref"));
const exactKl = policy.reduce((sum, p, v) => sum + p * Math.log(p / ref[v]), 0);
/** E_π of an estimator, by enumeration instead of sampling. */
const expected = (estimator: KlEstimator) =>
  policy.reduce((sum, p, v) => sum + p * tokenKl(estimator, Math.log(p), Math.log(ref[v])), 0);

describe("tokenKl", () => {
  it("k1 and k3 are unbiased: their expectation under the policy is the exact KL", () => {
    expect(exactKl).toBeGreaterThan(0.1);
    expect(expected("k1")).toBeCloseTo(exactKl, 12);
    expect(expected("k3")).toBeCloseTo(exactKl, 12);
  });

  it("k2 is biased", () => {
    expect(Math.abs(expected("k2") - exactKl)).toBeGreaterThan(0.01);
  });

  it("k2 and k3 are never negative; k1 may be", () => {
    for (const delta of normals(200, "deltas", 3)) {
      expect(tokenKl("k2", delta, 0)).toBeGreaterThanOrEqual(0);
      expect(tokenKl("k3", delta, 0)).toBeGreaterThanOrEqual(0);
    }
    expect(tokenKl("k1", -2, -1)).toBe(-1);
  });

  it("has the values of its formulas", () => {
    expect(tokenKl("k1", -1, -1.5)).toBe(0.5);
    expect(tokenKl("k2", -1, -1.5)).toBe(0.125);
    expect(tokenKl("k3", -1, -1.5)).toBeCloseTo(Math.exp(-0.5) - 1 + 0.5, 15);
    for (const estimator of ["k1", "k2", "k3"] as const) expect(tokenKl(estimator, -1.25, -1.25)).toBe(0);
  });
});

describe("sequenceKl", () => {
  it("adds up the tokens that count", () => {
    const logprobs = Float32Array.of(-1, -2, -3);
    const refLogprobs = Float32Array.of(-1.5, -2, -5);
    expect(sequenceKl("k1", logprobs, refLogprobs)).toBe(2.5);
    expect(sequenceKl("k1", logprobs, refLogprobs, Uint8Array.of(1, 1, 0))).toBe(0.5);
    expect(sequenceKl("k1", new Float32Array(0), new Float32Array(0))).toBe(0);
  });

  it("refuses rows of different length", () => {
    expect(() => sequenceKl("k1", new Float32Array(2), new Float32Array(3))).toThrow(/one length/);
  });
});
