import { describe, expect, it } from "vitest";
import { createReferenceEngine } from "../../../src/engine/reference.js";
import { BRADLEY_TERRY_DEFAULTS, verifyBradleyTerry } from "../../../src/verify/bradley-terry.js";
import {
  evaluatePolicy,
  exactOptimum,
  logProbability,
  makeEnumerableTask,
  VOCABULARY,
} from "../../../src/verify/enumerable-task.js";
import { OPTIMUM_DEFAULTS, verifyOptimum } from "../../../src/verify/optimum.js";

const engine = createReferenceEngine();

describe("the enumerable task", () => {
  const task = makeEnumerableTask(3);

  it("lists every answer once: probabilities add up to 1 per prompt", () => {
    for (let prompt = 0; prompt < task.prompts; prompt++) {
      const own = task.answers.filter((answer) => answer.prompt === prompt);
      expect(own).toHaveLength(1 + 3 + 9 + 27); // ended after 1, 2, 3 tokens, or cut at 3
      const total = own.reduce((sum, answer) => sum + Math.exp(logProbability(task.refLogits, answer)), 0);
      expect(total).toBeCloseTo(1, 6);
    }
  });

  it("no policy beats the exact optimum, and π* itself reaches it", () => {
    const { objective: best, kl } = exactOptimum(task);
    // π* as logits: log of the summed weights of the answers below each (state, token)
    const logits = new Float32Array(task.stateCount * VOCABULARY);
    const weights = new Float64Array(logits.length);
    for (const answer of task.answers) {
      const weight = Math.exp(logProbability(task.refLogits, answer) + answer.reward / task.beta);
      answer.states.forEach((state, i) => (weights[state * VOCABULARY + answer.tokens[i]] += weight));
    }
    weights.forEach((weight, i) => (logits[i] = Math.log(weight)));
    const optimal = evaluatePolicy(task, logits);
    expect(optimal.objective).toBeCloseTo(best, 5);
    expect(optimal.kl).toBeCloseTo(kl, 5);
    for (const scale of [0.5, 0.9, 1.1, 1.5]) {
      expect(
        evaluatePolicy(
          task,
          logits.map((x) => x * scale),
        ).objective,
      ).toBeLessThan(best);
    }
    expect(evaluatePolicy(task, task.refLogits).kl).toBe(0);
  });
});

describe("verifyOptimum", () => {
  it("PPO closes 95 % of the gap to the exact optimum, and its sampled KL is the exact one", async () => {
    const result = await verifyOptimum(engine, { ...OPTIMUM_DEFAULTS, iterations: 20 });
    expect(result.share).toBeGreaterThan(0.95);
    expect(result.share).toBeLessThanOrEqual(1);
    expect(result.reached).toBeGreaterThan(result.start);
    // 256 answers with a k1 deviation below 2: standard error 0.12
    expect(Math.abs(result.sampledKl - result.kl)).toBeLessThan(0.4);
  });

  it("stale samples cost little at a large step size, unless the KL penalty lags with them", async () => {
    const stale = {
      ...OPTIMUM_DEFAULTS,
      iterations: 20,
      learningRate: 0.2,
      staleness: 4,
      importance: { kind: "decoupled", cap: 5 },
    } as const;
    expect((await verifyOptimum(engine, stale)).share).toBeGreaterThan(0.9);
    const lagging = await verifyOptimum(engine, { ...stale, hasLaggingPenalty: true });
    expect(lagging.share).toBeLessThan(0.5);
  });

  it("can fail: 0.7 of the KL penalty misses the optimum", async () => {
    const result = await verifyOptimum(engine, { ...OPTIMUM_DEFAULTS, iterations: 20, klCoef: 0.7 });
    expect(result.share).toBeLessThan(0.95);
  });
});

describe("verifyBradleyTerry", () => {
  it("closes 95 % of the gap to the accuracy ceiling and to the loss floor", async () => {
    const result = await verifyBradleyTerry(engine, { ...BRADLEY_TERRY_DEFAULTS, epochs: 2 });
    expect(result.accuracyShare).toBeGreaterThan(0.95);
    expect(result.lossShare).toBeGreaterThan(0.95);
    expect(result.loss).toBeGreaterThanOrEqual(result.lossFloor);
    expect(result.accuracy).toBeLessThanOrEqual(result.accuracyCeiling);
  });

  it("can fail: too few labels miss both", async () => {
    const result = await verifyBradleyTerry(engine, {
      ...BRADLEY_TERRY_DEFAULTS,
      trainPairs: 512,
      epochs: 1,
    });
    expect(result.lossShare).toBeLessThan(0.95);
  });
});
