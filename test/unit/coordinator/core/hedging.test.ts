import { describe, expect, it, vi } from "vitest";
import { nextDeadlineMs, status } from "../../../../src/coordinator/core/index.js";
import { simulateSeed } from "../../../../src/simulation/index.js";
import { makeScenario } from "../../../../src/simulation/scenario.js";
import { World } from "../../../../src/simulation/world.js";
import { CoreDriver } from "./core-driver.js";

interface Assigned {
  readonly workerId: string;
  readonly incarnation: number;
  readonly taskId: string;
  readonly attempt: number;
  readonly experienceIds: readonly string[];
}

/** Four tasks of one: r1 does three of them, 100 ms each; r2 sits on its one. */
function withStraggler(config = {}): { core: CoreDriver; slow: Assigned } {
  const core = new CoreDriver({ hedgeFactor: 2, ...config });
  core.collect(4, 1);
  core.rollout("r2");
  const slow = core.takeOne("AssignTask");
  core.rollout("r1");
  for (let i = 0; i < 3; i++) {
    const task = core.takeOne("AssignTask");
    core.wait(100);
    core.deliver(task.experienceIds[0], task);
  }
  return { core, slow };
}

describe("hedging", () => {
  it("gives the last, slow task to an idle worker too; the first admission wins, the other is told to stop", () => {
    const { core, slow } = withStraggler();
    // 300 ms are more than twice the mean of 100 ms.
    const hedge = core.takeOne("AssignTask");
    expect(hedge).toMatchObject({
      workerId: "r1",
      taskId: slow.taskId,
      attempt: 2,
      redelivery: "hedge",
      experienceIds: slow.experienceIds,
      policyVersion: 0,
    });
    core.take("CancelTask");
    expect(core.deliver("0/0/0", hedge)).toBe("admitted");
    expect(core.take("CancelTask").map(({ workerId }) => workerId)).toEqual(["r2", "r1"]);
    expect(core.deliver("0/0/0", slow)).toBe("duplicate");
    expect(core.takeOne("CollectCompleted").experienceIds).toHaveLength(4);
    expect(status(core.state)).toMatchObject({ ledger: { admitted: 4 }, counters: { tasksHedged: 1 } });
  });

  it("lets the first holder win as well", () => {
    const { core, slow } = withStraggler();
    const hedge = core.takeOne("AssignTask");
    expect(core.deliver("0/0/0", slow)).toBe("admitted");
    expect(core.deliver("0/0/0", hedge)).toBe("duplicate");
  });

  it("wakes up by itself when a task becomes slow", () => {
    const { core } = withStraggler({ hedgeFactor: 20 });
    expect(core.take("AssignTask")).toEqual([]);
    expect(nextDeadlineMs(core.state) - core.nowMs).toBe(2_000 - 300);
    core.wait(1_699);
    expect(core.take("AssignTask")).toEqual([]);
    core.wait(1);
    expect(core.takeOne("AssignTask")).toMatchObject({ workerId: "r1", redelivery: "hedge" });
  });

  it("looks at no task while every worker is busy", () => {
    const core = new CoreDriver({ hedgeFactor: 2 });
    core.collect(5, 1);
    const r1 = core.rollout("r1");
    for (let i = 0; i < 3; i++) {
      const task = core.takeOne("AssignTask");
      core.wait(100);
      core.deliver(task.experienceIds[0], task);
    }
    const r2 = core.rollout("r2");
    for (const [workerId, incarnation] of [["r1", r1] as const, ["r2", r2] as const])
      core.do({ type: "WorkerReady", workerId, incarnation, credits: 2, policyVersion: 0 });
    const looks = vi.spyOn(core.state.volatile.freeWorkers, "idle");
    nextDeadlineMs(core.state);
    expect(core.state.volatile.freeWorkers.size).toBe(2);
    expect(looks).not.toHaveBeenCalled();
  });

  it("goes on with the second holder when the first dies, and starts no third", () => {
    const { core, slow } = withStraggler();
    const hedge = core.takeOne("AssignTask");
    core.do({ type: "WorkerDisconnected", workerId: "r2", incarnation: slow.incarnation });
    core.rollout("r3");
    expect(core.take("AssignTask")).toEqual([]);
    expect(core.deliver("0/0/0", hedge)).toBe("admitted");
  });

  it("never starts when it is off, while a task waits, or with another policy than the first holder's", () => {
    expect(withStraggler({ hedgeFactor: 0 }).core.take("AssignTask")).toEqual([]);
    const waiting = withStraggler({ capacityExperiences: 10, maxStalenessVersions: 1 });
    waiting.core.take("AssignTask");
    waiting.core.collect(2, 1, 1);
    expect(waiting.core.take("AssignTask").map(({ redelivery }) => redelivery)).not.toContain("hedge");
    const { core } = withStraggler({ hedgeFactor: 20, capacityExperiences: 10, maxStalenessVersions: 1 });
    core.do({ type: "VersionPublished", policyVersion: 1, sha256: "v1" });
    const { incarnation } = core.state.volatile.members.get("r1")!;
    core.do({ type: "WorkerReady", workerId: "r1", incarnation, credits: 1, policyVersion: 1 });
    core.wait(5_000);
    expect(core.take("AssignTask")).toEqual([]);
  });

  it("happens in the simulator, whose checker then finds nothing", () => {
    let hedged = 0;
    for (let seed = 1; seed <= 60; seed++) {
      const scenario = makeScenario(seed);
      if (scenario.hedgeFactor === 0) continue;
      const { entries } = new World(scenario, "none").run();
      const holders = new Map<string, string>();
      for (const entry of entries) if (entry.type === "hedged") holders.set(entry.taskId, entry.workerId);
      hedged += holders.size;
      expect(simulateSeed(seed).violations).toEqual([]);
    }
    expect(hedged).toBeGreaterThan(0);
  });
});
