import { describe, expect, it } from "vitest";
import { expNegative } from "../../../src/rollout/exponential.js";

describe("expNegative", () => {
  it("is within 2e-12 of Math.exp, relatively, down to -700", () => {
    let largest = 0;
    for (let x = 0; x >= -700; x -= 0.00531)
      largest = Math.max(largest, Math.abs(expNegative(x) / Math.exp(x) - 1));
    expect(largest).toBeLessThan(2e-12);
    expect(largest).toBeGreaterThan(1e-14); // the grid reaches the worst places between table entries
  });

  it("is exact at 0, 0 far below, and NaN for NaN", () => {
    expect(expNegative(0)).toBe(1);
    expect(expNegative(-701)).toBe(0);
    expect(expNegative(-Infinity)).toBe(0);
    expect(expNegative(NaN)).toBeNaN();
  });

  it("never falls as x rises", () => {
    let before = 0;
    for (let i = 2_000_000; i >= 0; i -= 7) {
      const value = expNegative(-i / 100_000);
      if (value < before) throw new Error(`falls at ${-i / 100_000}`);
      before = value;
    }
  });
});
