import { describe, expect, it } from "vitest";
import { computeGae } from "../../../src/rl/gae.js";
import { normals } from "./fixtures.js";

/** The definition: Â_i = Σ_l (γλ)^l δ_(i+l), every sum written out. */
function bruteForce(rewards: Float32Array, values: Float32Array, gamma: number, lam: number): number[] {
  const valueAt = (i: number) => (i < values.length ? values[i] : 0);
  return Array.from(rewards, (_, i) => {
    let sum = 0;
    for (let l = 0; i + l < rewards.length; l++) {
      const delta = rewards[i + l] + gamma * valueAt(i + l + 1) - valueAt(i + l);
      sum += (gamma * lam) ** l * delta;
    }
    return sum;
  });
}

describe("computeGae", () => {
  it.each([
    [1, 0.95],
    [0.9, 0.7],
    [1, 1],
    [0.99, 0],
    [0, 0.5],
  ])("equals the brute-force sum for gamma %d, lam %d", (gamma, lam) => {
    for (const tokens of [1, 2, 7, 33]) {
      const rewards = normals(tokens, `rewards ${tokens}`);
      const values = normals(tokens, `values ${tokens}`);
      const { advantages, returns } = computeGae(rewards, values, { gamma, lam });
      const expected = bruteForce(rewards, values, gamma, lam);
      expected.forEach((advantage, i) => {
        expect(advantages[i]).toBeCloseTo(advantage, 5); // one float32 rounding of numbers below 30
        expect(returns[i]).toBeCloseTo(advantage + values[i], 5);
      });
    }
  });

  it("with lam 1 and gamma 1 is return-to-go minus value", () => {
    const { advantages, returns } = computeGae(Float32Array.of(1, 2, 4), Float32Array.of(0.5, -1, 3), {
      gamma: 1,
      lam: 1,
    });
    expect([...returns]).toEqual([7, 6, 4]);
    expect([...advantages]).toEqual([6.5, 7, 1]);
  });

  it("with lam 0 is the one-step TD error, with nothing after the last token", () => {
    const { advantages } = computeGae(Float32Array.of(1, 2, 4), Float32Array.of(0.5, -1, 3), {
      gamma: 1,
      lam: 0,
    });
    expect([...advantages]).toEqual([1 - 1 - 0.5, 2 + 3 + 1, 4 - 3]);
  });

  it("of one token is reward minus value", () => {
    const { advantages, returns } = computeGae(Float32Array.of(2), Float32Array.of(0.5), {
      gamma: 1,
      lam: 0.95,
    });
    expect([advantages[0], returns[0]]).toEqual([1.5, 2]);
  });

  it("of an empty response is empty, and differing lengths are an error", () => {
    expect(
      computeGae(new Float32Array(0), new Float32Array(0), { gamma: 1, lam: 1 }).advantages,
    ).toHaveLength(0);
    expect(() => computeGae(new Float32Array(2), new Float32Array(3), { gamma: 1, lam: 1 })).toThrow(
      /\[2\].*\[3\]/,
    );
  });
});
