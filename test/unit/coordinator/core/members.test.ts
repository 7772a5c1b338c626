import { describe, expect, it } from "vitest";
import { status } from "../../../../src/coordinator/core/index.js";
import { CoreDriver } from "./core-driver.js";

describe("membership", () => {
  it("answers a repeated registration with the same incarnation", () => {
    const core = new CoreDriver();
    const event = {
      type: "WorkerRegistered",
      workerId: "r1",
      role: "rollout",
      requestId: "same",
      position: null,
      policyVersion: -1,
    } as const;
    core.do(event);
    core.do(event);
    const [first, second] = core.take("AcceptWorker");
    expect(second).toEqual(first);
    expect(core.take("FenceWorker")).toEqual([]);
  });

  it("fences the older process of an id and gives every process a greater incarnation, across restarts", () => {
    const core = new CoreDriver();
    const first = core.rollout("r1");
    const second = core.rollout("r1");
    expect(core.takeOne("FenceWorker")).toMatchObject({ workerId: "r1", incarnation: first });
    core.restart();
    const third = core.rollout("r1");
    expect(first < second && second < third).toBe(true);
  });

  it.each(["stale incarnation", "older epoch", "unknown worker"])("fences every event of a %s", (kind) => {
    const core = new CoreDriver();
    core.collect(1);
    const old = core.rollout("r1");
    const task = core.takeOne("AssignTask");
    if (kind === "stale incarnation") core.rollout("r1");
    if (kind === "older epoch") core.restart();
    if (kind === "unknown worker") core.do({ type: "WorkerLeft", workerId: "r1", incarnation: old });
    core.effects = [];
    const records = core.journal.length;
    expect(core.deliver("0/0/0", task)).toBe("fenced");
    core.do({ type: "WorkerHeartbeat", workerId: "r1", incarnation: old });
    core.do({
      type: "StepVote",
      workerId: "r1",
      incarnation: old,
      generation: 1,
      step: 1,
      isFinite: true,
      hash: "",
    });
    expect(core.take("FenceWorker").map(({ incarnation }) => incarnation)).toEqual([old, old, old]);
    expect(core.journal).toHaveLength(records);
    expect(status(core.state).counters.fencedEvents).toBe(3);
  });

  it("does not let an old stream's end remove the process that replaced it", () => {
    const core = new CoreDriver();
    const old = core.rollout("r1");
    const current = core.rollout("r1");
    core.do({ type: "WorkerDisconnected", workerId: "r1", incarnation: old });
    expect(status(core.state).members).toMatchObject([{ workerId: "r1", incarnation: current }]);
  });

  it("loses a member exactly one lease after its last heartbeat", () => {
    const core = new CoreDriver({ leaseTtlMs: 1_000 });
    const incarnation = core.rollout("r1");
    core.wait(900);
    core.do({ type: "WorkerHeartbeat", workerId: "r1", incarnation });
    core.wait(999);
    expect(core.take("FenceWorker")).toEqual([]);
    core.wait(1);
    expect(core.takeOne("FenceWorker")).toMatchObject({ incarnation });
  });

  it("is not moved by a clock that runs backwards", () => {
    const core = new CoreDriver({ leaseTtlMs: 1_000 });
    const incarnation = core.rollout("r1");
    core.nowMs -= 500_000;
    core.do({ type: "WorkerHeartbeat", workerId: "r1", incarnation });
    core.nowMs += 500_999;
    core.do({ type: "Tick" });
    expect(core.take("FenceWorker")).toEqual([]);
  });

  it("takes nothing from a role that has no business with it", () => {
    const core = new CoreDriver();
    core.collect(1);
    core.rollout("r1");
    const task = core.takeOne("AssignTask");
    const learner = core.learner("l1");
    expect(core.deliver("0/0/0", { ...task, workerId: "l1", incarnation: learner })).toBe("fenced");
    core.do({ type: "WorkerReady", workerId: "l1", incarnation: learner, credits: 5, policyVersion: 0 });
    expect(core.take("AssignTask")).toEqual([]);
  });

  it("keeps the desired scale across a restart and reports a change once", () => {
    const core = new CoreDriver();
    core.do({ type: "ScaleRequested", role: "rollout", desired: 4 });
    core.do({ type: "ScaleRequested", role: "rollout", desired: 4 });
    expect(core.take("DesiredScaleChanged")).toMatchObject([{ role: "rollout", desired: 4 }]);
    core.restart();
    expect(status(core.state).desired).toEqual({ rollout: 4, learner: null });
  });

  it("publishes versions only forwards", () => {
    const core = new CoreDriver();
    const publish = (policyVersion: number, sha256: string): number => {
      core.do({ type: "VersionPublished", policyVersion, sha256 });
      return core.take("AnnounceVersion").length;
    };
    expect([publish(1, "a"), publish(1, "a"), publish(1, "b"), publish(0, "c"), publish(2, "d")]).toEqual([
      1, 1, 0, 0, 1,
    ]);
    expect(core.journal.filter((record) => record.type === "VersionPublished")).toHaveLength(2);
  });
});
