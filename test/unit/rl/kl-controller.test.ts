import { describe, expect, it } from "vitest";
import { startKlController, stepKlController } from "../../../src/rl/kl-controller.js";

const adaptive = { type: "adaptive", initCoef: 0.15, target: 6, horizonExperiences: 10_000 } as const;

describe("stepKlController", () => {
  it("a fixed coefficient stays", () => {
    const controller = startKlController({ type: "fixed", coef: 0.05 });
    expect(stepKlController(controller, 100, 512).coef).toBe(0.05);
  });

  it("moves by (1 + error·n/horizon) with the error of Ziegler et al.", () => {
    const start = startKlController(adaptive);
    expect(start.coef).toBe(0.15);
    // kl 10 % above target, 500 experiences: 1 + 0.1 · 500 / 10000
    expect(stepKlController(start, 6.6, 500).coef).toBeCloseTo(0.15 * 1.005, 12);
    expect(stepKlController(start, 5.4, 500).coef).toBeCloseTo(0.15 * 0.995, 12);
    expect(stepKlController(start, 6, 500).coef).toBe(0.15);
  });

  it("clips the error to ±0.2", () => {
    const start = startKlController(adaptive);
    expect(stepKlController(start, 600, 1000).coef).toBeCloseTo(0.15 * 1.02, 12);
    expect(stepKlController(start, -3, 1000).coef).toBeCloseTo(0.15 * 0.98, 12);
  });

  it("does not change the controller it is given", () => {
    const start = startKlController(adaptive);
    stepKlController(start, 12, 1000);
    expect(start.coef).toBe(0.15);
  });

  it("stops on a KL that is not finite and on a horizon that would flip the sign", () => {
    const start = startKlController({ ...adaptive, horizonExperiences: 100 });
    expect(() => stepKlController(start, NaN, 10)).toThrow(/NaN/);
    expect(() => stepKlController(start, 0, 1000)).toThrow(/horizonExperiences is 100/);
  });
});
