import { describe, expect, it } from "vitest";
import { DEFAULT_RESTART_POLICY, RestartBudget } from "../../../src/launcher/restart-budget.js";

const delayOf = (decision: ReturnType<RestartBudget["decide"]>) =>
  decision.type === "restart" ? decision.delayMs : decision.type;

describe("RestartBudget", () => {
  it("waits 1, 2, 4 … 30 s between failures in a row", () => {
    const budget = new RestartBudget(DEFAULT_RESTART_POLICY, () => 0);
    const delays = Array.from({ length: 8 }, (_, i) =>
      delayOf(budget.decide("learner", "learner-0", i * 1000, 10)),
    );
    expect(delays).toEqual([1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);
  });

  it("adds up to a quarter at random", () => {
    const budget = new RestartBudget(DEFAULT_RESTART_POLICY, () => 1);
    expect(delayOf(budget.decide("learner", "learner-0", 0, 10))).toBe(1250);
  });

  it("starts over with the delay of a process that had recovered", () => {
    const budget = new RestartBudget(DEFAULT_RESTART_POLICY, () => 0);
    for (let i = 0; i < 4; i++) budget.decide("learner", "learner-0", i, 10);
    expect(delayOf(budget.decide("learner", "learner-0", 5, 60_000))).toBe(1000);
    expect(delayOf(budget.decide("learner", "learner-0", 6, 59_999))).toBe(2000);
  });

  it("allows 10 restarts of a role in 10 minutes, whichever process needs them", () => {
    const budget = new RestartBudget(DEFAULT_RESTART_POLICY, () => 0);
    for (let i = 0; i < 10; i++)
      expect(budget.decide("rollout", `rollout-${i % 3}`, i * 1000, 10).type).toBe("restart");
    expect(budget.decide("rollout", "rollout-9", 599_999, 10)).toEqual({ type: "spent", used: 10 });
    expect(budget.decide("learner", "learner-0", 599_999, 10).type).toBe("restart");
  });

  it("forgets restarts once they are 10 minutes old", () => {
    const budget = new RestartBudget(DEFAULT_RESTART_POLICY, () => 0);
    for (let i = 0; i < 10; i++) budget.decide("rollout", "rollout-0", i * 1000, 10);
    expect(budget.decide("rollout", "rollout-0", 600_000, 10)).toMatchObject({ type: "restart", used: 10 });
    expect(budget.decide("rollout", "rollout-0", 600_001, 10).type).toBe("spent");
  });

  it("backs off without booking for a process that left in peace", () => {
    const budget = new RestartBudget({ ...DEFAULT_RESTART_POLICY, maxRestarts: 1 }, () => 0);
    expect([budget.backoffMs("rollout-0", 1), budget.backoffMs("rollout-0", 1)]).toEqual([1000, 2000]);
    expect(budget.decide("rollout", "rollout-0", 0, 1).type).toBe("restart");
  });
});
