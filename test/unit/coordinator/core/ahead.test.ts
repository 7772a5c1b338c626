import { describe, expect, it } from "vitest";
import { status } from "../../../../src/coordinator/core/index.js";
import { CoreDriver } from "./core-driver.js";

const STALENESS = 1;
const settings = { maxStalenessVersions: STALENESS, capacityExperiences: 4 };

function request(core: CoreDriver, iteration: number, policyVersion: number): void {
  const tasks = [{ taskId: `task-${iteration}`, experienceIds: [`${iteration}/0/0`, `${iteration}/1/0`] }];
  core.do({ type: "CollectRequested", iteration, policyVersion, tasks });
}

/** Iteration 0 collected and iteration 1 asked for ahead, with policy 0. */
function start(): { core: CoreDriver; ids: string[] } {
  const core = new CoreDriver(settings);
  const ids = core.collectAll(2);
  request(core, 1, 0);
  return { core, ids };
}

describe("collecting ahead", () => {
  it("goes on while a step is active, and the trained are counted by their age", () => {
    const { core, ids } = start();
    core.learner("l1");
    core.requestStep(1, ids);
    core.rollout("r1");
    const task = core.takeOne("AssignTask");
    expect(core.deliver("1/0/0", task)).toBe("admitted");
    core.voteAll("h1");
    core.do({ type: "VersionPublished", policyVersion: 1, sha256: "v1" });
    core.do({ type: "IterationCommitted", iteration: 0, promptCursor: 2, resume: null });
    expect(core.deliver("1/1/0", task, { policyVersion: 0 })).toBe("admitted");
    request(core, 1, 0);
    core.requestStep(2, core.take("CollectCompleted").at(-1)!.experienceIds);
    core.voteAll("h2");
    expect(status(core.state).ledger).toMatchObject({
      admitted: 4,
      trained: 4,
      buffered: 0,
      open: 0,
      dropped: {},
      trainedByStaleness: { 0: 2, 1: 2 },
    });
  });

  it("hands out work of a later iteration only to be sampled with a policy that is young enough when it is used", () => {
    const { core } = start();
    request(core, 2, 1);
    core.rollout("r1", 5, 0);
    expect(core.take("AssignTask").map(({ taskId }) => taskId)).toEqual(["task-1"]);
    core.do({ type: "VersionPublished", policyVersion: 1, sha256: "v1" });
    expect(core.take("AssignTask")).toEqual([]); // no room either: 0 is not trained yet
    expect(status(core.state).tasks.collections).toBe(1);
  });

  it("refuses a sample of an older policy than the collection may use, though it is within the bound of now", () => {
    const core = new CoreDriver(settings);
    core.collect(2);
    core.do({ type: "VersionPublished", policyVersion: 1, sha256: "v1" });
    request(core, 1, 1);
    core.rollout("r1", 5, 1);
    const task = core.take("AssignTask").find(({ taskId }) => taskId === "task-1")!;
    expect(core.deliver("1/0/0", task, { policyVersion: 0 })).toBe("stale");
    expect(core.deliver("1/0/0", task, { policyVersion: 1 })).toBe("admitted");
  });

  it("never asks for more than (η + 1) collections at a time", () => {
    const { core, ids } = start();
    request(core, 2, 0);
    core.rollout("r1", 9);
    expect(core.take("AssignTask").map(({ taskId }) => taskId)).toEqual(["task-1"]);
    core.learner("l1");
    core.requestStep(1, ids);
    core.voteAll("h1");
    expect(core.take("AssignTask").map(({ taskId }) => taskId)).toEqual(["task-2"]);
  });

  it("keeps bytes free for the iteration that is trained next: a later one cannot starve it", () => {
    const core = new CoreDriver({ ...settings, capacityBytes: 30 });
    core.collect(2, 1);
    request(core, 1, 0);
    core.rollout("r1", 1);
    const first = core.takeOne("AssignTask");
    expect(core.deliver("0/0/0", first)).toBe("admitted");
    core.rollout("r2", 1);
    expect(core.take("AssignTask").map(({ taskId }) => taskId)).toEqual(["task-0-1"]); // not task-1: 10 + 10 + 20 > 30
  });

  it("is taken up again by a coordinator that died in the middle of the overlap", () => {
    const { core, ids } = start();
    core.learner("l1");
    core.requestStep(1, ids);
    core.rollout("r1");
    core.deliver("1/0/0", core.takeOne("AssignTask"));
    core.restart();
    core.rollout("r2");
    expect(core.takeOne("AssignTask").experienceIds).toEqual(["1/1/0"]);
    request(core, 0, 0);
    request(core, 1, 0);
    expect(core.takeOne("CollectCompleted")).toMatchObject({ iteration: 0, experienceIds: ids });
  });

  it("drops what a lowered bound makes too old, and the ledger balances", () => {
    const { core } = start();
    core.do({ type: "VersionPublished", policyVersion: 1, sha256: "v1" });
    expect(status(core.state).ledger).toMatchObject({ buffered: 2, dropped: {} });
    Object.assign(core.state.config, { maxStalenessVersions: 0 });
    core.do({ type: "CoordinatorStarted" });
    expect(status(core.state).ledger).toMatchObject({ admitted: 2, buffered: 0, dropped: { stale: 2 } });
  });

  it("gives up what no iteration follows", () => {
    const { core, ids } = start();
    core.learner("l1");
    core.requestStep(1, ids);
    core.voteAll("h1");
    core.do({ type: "IterationCommitted", iteration: 0, promptCursor: 2, resume: null });
    core.rollout("r1");
    core.deliver("1/0/0", core.takeOne("AssignTask"));
    core.do({ type: "CollectionsCancelled" });
    expect(core.take("CancelTask").at(-1)).toMatchObject({ workerId: "r1", taskId: "task-1" });
    expect(status(core.state).ledger).toMatchObject({
      admitted: 3,
      trained: 2,
      buffered: 0,
      open: 0,
      dropped: { unused: 1 },
      abandoned: { iterationEnd: 1 },
    });
  });

  it("gives up the step under way with what it would train", () => {
    const { core, ids } = start();
    const incarnation = core.learner("l1");
    core.requestStep(1, ids);
    const { generation, step } = core.takeOne("StartStep");
    core.do({ type: "CollectionsCancelled" });
    expect(core.takeOne("AbortStep")).toMatchObject({ generation, reason: "stageEnded" });
    const vote = { generation, step, isFinite: true, hash: "h1" };
    core.do({ type: "StepVote", workerId: "l1", incarnation, ...vote });
    expect(core.take("CommitStep")).toEqual([]);
    expect(status(core.state).ledger).toMatchObject({ admitted: 2, trained: 0, dropped: { unused: 2 } });
    core.restart();
  });
});
