import { describe, expect, it } from "vitest";
import { phaseOf } from "../../../src/chaos/phase.js";
import type { RunStatus } from "../../../src/rpc/control-client.js";

const plan = { iterations: 3, experiencesPerIteration: 16, stepsPerIteration: 4, usesPerExperience: 2 };
const ppo = (iteration: number, optimizerStep: number, policyVersion: number, buffered: number) =>
  ({ stage: "ppo", iteration, optimizerStep, policyVersion, ledger: { buffered } }) as RunStatus;

describe("the phase of a run", () => {
  it.each([
    ["between", ppo(1, 4, 1, 0)],
    ["collecting", ppo(1, 4, 1, 1)],
    ["collecting", ppo(1, 4, 1, 15)],
    ["updating", ppo(1, 4, 1, 16)],
    ["updating", ppo(1, 7, 1, 8)],
    ["publishing", ppo(1, 8, 1, 0)],
    ["checkpointing", ppo(1, 8, 2, 0)],
    ["between", ppo(2, 12, 3, 0)], // the last iteration is followed by an evaluation
  ] as const)("is %s", (phase, status) => {
    expect(phaseOf(status, plan)).toBe(phase);
  });

  it("is supervised in sft and reward, and away while nobody answers", () => {
    expect(phaseOf({ stage: "sft" } as RunStatus, plan)).toBe("supervised");
    expect(phaseOf({ stage: "reward" } as RunStatus, plan)).toBe("supervised");
    expect(phaseOf({ stage: "" } as RunStatus, plan)).toBe("between");
    expect(phaseOf(undefined, plan)).toBe("away");
  });
});
