import { describe, expect, it } from "vitest";
import { checkPreflight } from "../../../src/stages/ppo-report.js";
import type { ScoredRollout } from "../../../src/rl/types.js";

const LOGITS = [2, -1, 0.5, 0];
/** log softmax(logits / temperature)[token] */
const logprobOf = (token: number, temperature: number): number => {
  const scaled = LOGITS.map((logit) => logit / temperature);
  return scaled[token] - Math.log(scaled.reduce((sum, value) => sum + Math.exp(value), 0));
};
const rollout = (refTemperature: number, error = 0): ScoredRollout => ({
  experienceId: "0/5/0",
  promptIndex: 5,
  sampleIndex: 0,
  promptIds: Int32Array.of(1),
  policyVersion: 0,
  responseIds: Int32Array.of(0, 1, 2),
  logprobs: Float32Array.from([0, 1, 2], (token) => logprobOf(token, 1)),
  refLogprobs: Float32Array.from(
    [0, 1, 2],
    (token) => logprobOf(token, refTemperature) + (token === 1 ? error : 0),
  ),
  values: new Float32Array(3),
  score: 0,
  finishReason: "eos",
});

describe("the preflight before the first step", () => {
  it("passes rollouts whose actor is the reference, up to float32 rounding", () => {
    expect(() => checkPreflight.rollouts([rollout(1), rollout(1, 9e-5)])).not.toThrow();
  });

  it.each<[string, ScoredRollout]>([
    ["another temperature", rollout(0.7)],
    ["a temperature that is only a little off", rollout(1.001)],
    ["one token of another model", rollout(1, 2e-4)],
    ["the same, in the other direction", rollout(1, -2e-4)],
  ])("stops a run whose reference was computed with %s", (_, wrong) => {
    expect(() => checkPreflight.rollouts([rollout(1), wrong])).toThrow(
      expect.objectContaining({
        code: "NUMERIC",
        message: expect.stringMatching(/preflight.*token \d of experience 0\/5\/0/) as string,
      }),
    );
  });

  it("stops a run whose rollouts hold NaN", () => {
    expect(() => checkPreflight.rollouts([rollout(1, NaN)])).toThrow(
      expect.objectContaining({ code: "NUMERIC" }),
    );
  });

  it("lets an int8 reference be off by its rounding, and states by how much", () => {
    const offset = checkPreflight.rollouts([rollout(1), rollout(1, 0.06)], "int8");
    expect(offset).toBeCloseTo(0.06 / 6, 6);
    expect(() => checkPreflight.rollouts([rollout(1), rollout(1, 0.06)], "f32")).toThrow();
  });

  it("stops a run whose int8 reference is another model, or not a number", () => {
    for (const wrong of [rollout(0.7), rollout(1, NaN)]) {
      expect(() => checkPreflight.rollouts([wrong], "int8")).toThrow(
        expect.objectContaining({ message: expect.stringMatching(/int8 reference differ/) as string }),
      );
    }
  });

  /** Sums over the first minibatch, as the learners' policy loss reports them. */
  const sumsOf = (learnerTemperature: number) => ({
    tokens: 3,
    absLogRatioSum: [0, 1, 2].reduce(
      (sum, token) => sum + Math.abs(logprobOf(token, learnerTemperature) - logprobOf(token, 1)),
      0,
    ),
  });

  it("passes a first step whose ratios are 1", () => {
    expect(() => checkPreflight.firstStep(sumsOf(1))).not.toThrow();
    expect(() => checkPreflight.firstStep({ tokens: 1000, absLogRatioSum: 0.09 })).not.toThrow();
  });

  it.each([0.9, 1.01, 2])(
    "stops a run whose learners compute with temperature %d instead of 1",
    (temperature) => {
      expect(() => checkPreflight.firstStep(sumsOf(temperature))).toThrow(
        expect.objectContaining({
          code: "NUMERIC",
          message: expect.stringContaining("learners and rollouts differ") as string,
        }),
      );
    },
  );

  it("stops a run whose first step reports no log-ratio at all", () => {
    expect(() => checkPreflight.firstStep({ tokens: 3 })).toThrow(
      expect.objectContaining({ code: "NUMERIC" }),
    );
  });

  it("lets a step pass that was answered from the journal: it was checked when it was made", () => {
    expect(() => checkPreflight.firstStep({})).not.toThrow();
  });
});
