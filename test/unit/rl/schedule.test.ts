import { describe, expect, it } from "vitest";
import { learningRateAt } from "../../../src/rl/schedule.js";

const options = (schedule: "cosine" | "linear" | "constant", warmupSteps = 0) => ({
  learningRate: 2,
  schedule,
  warmupSteps,
});

describe("learningRateAt", () => {
  it("warms up linearly from 0 and peaks right after", () => {
    const rates = [0, 1, 2, 3, 4].map((step) => learningRateAt(options("linear", 4), step, 12));
    expect(rates).toEqual([0, 0.5, 1, 1.5, 2]);
  });

  it("cosine: half the peak half-way, near 0 at the last step, 0 past it", () => {
    const cosine = options("cosine", 10);
    expect(learningRateAt(cosine, 60, 110)).toBeCloseTo(1, 12);
    expect(learningRateAt(cosine, 35, 110)).toBeCloseTo(1 + Math.SQRT1_2, 12); // a quarter of the way
    expect(learningRateAt(cosine, 109, 110)).toBeGreaterThan(0);
    expect(learningRateAt(cosine, 110, 110)).toBeCloseTo(0, 12);
    expect(learningRateAt(cosine, 500, 110)).toBeCloseTo(0, 12);
  });

  it("linear falls by equal amounts; constant stays", () => {
    expect([0, 5, 10].map((step) => learningRateAt(options("linear"), step, 10))).toEqual([2, 1, 0]);
    expect([0, 5, 99].map((step) => learningRateAt(options("constant"), step, 10))).toEqual([2, 2, 2]);
  });

  it("is defined when the warm-up is as long as the stage", () => {
    expect(learningRateAt(options("cosine", 5), 5, 5)).toBe(2);
  });

  it("refuses a step that is not a whole number", () => {
    expect(() => learningRateAt(options("linear"), -1, 5)).toThrow(/-1/);
    expect(() => learningRateAt(options("linear"), 0.5, 5)).toThrow(/0.5/);
  });
});
