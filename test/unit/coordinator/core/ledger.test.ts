import { describe, expect, it } from "vitest";
import { livePayloadIds, status } from "../../../../src/coordinator/core/index.js";
import { CoreDriver } from "./core-driver.js";

describe("experience ledger", () => {
  it("admits an id once and calls every repetition a duplicate, also after a restart", () => {
    const core = new CoreDriver();
    core.collect(2);
    core.rollout("r1");
    const task = core.takeOne("AssignTask");
    expect(core.deliver("0/0/0", task)).toBe("admitted");
    expect(core.deliver("0/0/0", task)).toBe("duplicate");
    core.restart();
    const incarnation = core.rollout("r1");
    expect(core.deliver("0/0/0", { ...task, incarnation })).toBe("duplicate");
    expect(core.journal.filter((record) => record.type === "ExperiencesAdmitted")).toHaveLength(1);
  });

  it("still calls an id of a committed iteration a duplicate when its entry is forgotten", () => {
    const core = new CoreDriver();
    core.collectAll(2);
    core.do({ type: "IterationCommitted", iteration: 0, promptCursor: 2, resume: null });
    expect(core.state.durable.experiences.size).toBe(0);
    const incarnation = core.rollout("r1");
    expect(core.deliver("0/1/0", { workerId: "r1", incarnation, taskId: "task-0-0", attempt: 1 })).toBe(
      "duplicate",
    );
  });

  it.each([
    ["an id nobody asked for", "7/0/0", {}, "unknown"],
    ["a policy that was never published", "0/0/0", { policyVersion: 9 }, "unknown"],
    ["a policy older than the bound", "0/0/0", { policyVersion: -1 }, "stale"],
  ])("refuses %s without a record", (_, id, change, outcome) => {
    const core = new CoreDriver();
    core.collect(2);
    core.rollout("r1");
    const task = core.takeOne("AssignTask");
    const records = core.journal.length;
    expect(core.deliver(id, task, change)).toBe(outcome);
    expect(core.journal).toHaveLength(records);
  });

  it("gives a non-finite experience up at once, because sampling it again would give the same", () => {
    const core = new CoreDriver();
    core.collect(2);
    core.rollout("r1");
    const task = core.takeOne("AssignTask");
    expect(core.deliver("0/0/0", task, { isFinite: false })).toBe("nonfinite");
    expect(core.deliver("0/0/0", task)).toBe("duplicate");
    expect(core.deliver("0/1/0", task)).toBe("admitted");
    expect(core.takeOne("CollectCompleted")).toMatchObject({ experienceIds: ["0/1/0"], abandoned: 1 });
    expect(status(core.state).ledger).toMatchObject({
      requested: 2,
      admitted: 1,
      abandoned: { nonfinite: 1 },
    });
  });

  it("reports a complete collection with its ids in numeric order, whatever the order of arrival", () => {
    const core = new CoreDriver();
    core.collect(12);
    core.rollout("r1");
    const task = core.takeOne("AssignTask");
    for (const i of [11, 2, 10, 0, 9, 1, 3, 8, 4, 7, 5, 6]) core.deliver(`0/${i}/0`, task);
    const expected = Array.from({ length: 12 }, (_, i) => `0/${i}/0`);
    expect(core.takeOne("CollectCompleted").experienceIds).toEqual(expected);
  });

  it("answers a repeated request from the journal after a restart", () => {
    const core = new CoreDriver();
    const ids = core.collectAll(3);
    core.restart();
    core.collect(3);
    expect(core.takeOne("CollectCompleted").experienceIds).toEqual(ids);
  });

  it("reserves room for whole collections: the second one waits until the first is trained", () => {
    const core = new CoreDriver({ capacityExperiences: 3 });
    const ids = core.collectAll(2);
    core.collect(2, 2, 1);
    core.rollout("r1", 5);
    expect(core.take("AssignTask")).toEqual([]);
    expect(status(core.state).tasks.collections).toBe(1);
    core.learner("l1");
    core.requestStep(1, ids);
    core.voteAll("h1");
    expect(core.takeOne("AssignTask").experienceIds).toEqual(["1/0/0", "1/1/0"]);
  });

  it("refuses a collection that can never fit, and ids of another iteration", () => {
    const core = new CoreDriver({ capacityExperiences: 3 });
    core.collect(4);
    expect(core.takeOne("CollectRefused").reason).toContain("do not fit the buffer of 3");
    const tasks = [{ taskId: "t", experienceIds: ["5/0/0"] }];
    core.do({ type: "CollectRequested", iteration: 0, policyVersion: 0, tasks });
    expect(core.takeOne("CollectRefused").reason).toContain("does not belong to iteration 0");
  });

  it("never holds more payload bytes than allowed: what cannot drain is given up, what can is asked for again", () => {
    const core = new CoreDriver({ capacityBytes: 25, capacityExperiences: 10 });
    core.collect(3);
    core.rollout("r1");
    const task = core.takeOne("AssignTask");
    expect(["0/0/0", "0/1/0", "0/2/0"].map((id) => core.deliver(id, task))).toEqual([
      "admitted",
      "admitted",
      "overCapacity",
    ]);
    const { experienceIds: ids, abandoned } = core.takeOne("CollectCompleted");
    expect([ids.length, abandoned]).toEqual([2, 1]);

    // The buffer now holds a complete collection, so the next one is refused only for the time being.
    core.collect(1, 1, 1);
    core.learner("l1");
    expect(core.take("AssignTask")).toEqual([]);
    core.requestStep(1, ids);
    core.voteAll("h1");
    const again = core.takeOne("AssignTask");
    expect(core.deliver("1/0/0", again)).toBe("admitted");
  });

  it("drops what a new policy leaves behind, and only that", () => {
    const core = new CoreDriver({ maxStalenessVersions: 1, capacityExperiences: 10 });
    core.collectAll(2);
    core.do({ type: "VersionPublished", policyVersion: 1, sha256: "v1" });
    expect(core.take("ExperiencesDropped")).toEqual([]);
    core.do({ type: "VersionPublished", policyVersion: 2, sha256: "v2" });
    expect(core.takeOne("ExperiencesDropped")).toMatchObject({
      experienceIds: ["0/0/0", "0/1/0"],
      reason: "stale",
    });
    expect(status(core.state).ledger).toMatchObject({ admitted: 2, buffered: 0, dropped: { stale: 2 } });
  });

  it("keeps a trained payload until a checkpoint covers the step that used it", () => {
    const core = new CoreDriver();
    const ids = core.collectAll(2);
    core.learner("l1");
    core.requestStep(1, ids, false);
    core.voteAll("h1");
    core.requestStep(2, ids, true);
    core.voteAll("h2");
    expect(status(core.state).ledger).toMatchObject({ admitted: 2, trained: 2, buffered: 0 });
    core.do({ type: "IterationCommitted", iteration: 0, promptCursor: 2, resume: null });
    expect(livePayloadIds(core.state.durable).size).toBe(2);
    core.do({ type: "CheckpointSaved", checkpointId: "c1", stage: "ppo", step: 1, resume: null });
    expect(livePayloadIds(core.state.durable).size).toBe(2);
    core.take("journal");
    core.do({ type: "CheckpointSaved", checkpointId: "c2", stage: "ppo", step: 2, resume: null });
    expect(core.takeOne("journal").deletePayloads).toEqual(ids);
    expect(livePayloadIds(core.state.durable).size).toBe(0);
  });

  it("deletes the payload of a dropped experience at once when the checkpoint covers its last use", () => {
    const core = new CoreDriver();
    const ids = core.collectAll(2);
    core.learner("l1");
    core.requestStep(1, ids, false);
    core.voteAll("h1");
    core.do({ type: "CheckpointSaved", checkpointId: "c1", stage: "ppo", step: 1, resume: null });
    expect(core.state.durable.manifests).toEqual([]);
    core.take("journal");
    core.do({ type: "IterationCommitted", iteration: 0, promptCursor: 2, resume: null });
    expect(core.take("journal").flatMap(({ deletePayloads = [] }) => deletePayloads)).toEqual(ids);
    expect(livePayloadIds(core.state.durable).size).toBe(0);
  });

  it("gives up open and drops buffered experiences when their iteration ends", () => {
    const core = new CoreDriver();
    core.collect(2);
    core.rollout("r1");
    const task = core.takeOne("AssignTask");
    core.deliver("0/0/0", task);
    core.do({ type: "IterationCommitted", iteration: 0, promptCursor: 2, resume: null });
    expect(core.takeOne("CancelTask")).toMatchObject({ workerId: "r1", taskId: task.taskId });
    expect(status(core.state).ledger).toMatchObject({
      requested: 2,
      admitted: 1,
      open: 0,
      buffered: 0,
      dropped: { unused: 1 },
      abandoned: { iterationEnd: 1 },
    });
  });
});
