import { describe, expect, it } from "vitest";
import type { CoreConfig, LearnerPosition } from "../../../../src/coordinator/core/index.js";
import { CoreDriver } from "./core-driver.js";

const PATIENCE = { drainTimeoutMs: 8_000, leaseTtlMs: 100_000 };

/** Two learners that have done one step; the stage has no checkpoint. */
function afterStep1(config: Partial<CoreConfig> = {}) {
  const core = new CoreDriver({ ...PATIENCE, ...config });
  core.do({ type: "StageStarted", stage: "ppo" });
  const incarnations = { l1: core.learner("l1"), l2: core.learner("l2") };
  core.requestStep(1);
  core.voteAll("h1");
  core.effects = [];
  const drain = (workerId: "l1" | "l2", incarnation = incarnations[workerId]) =>
    core.do({ type: "WorkerDraining", workerId, incarnation });
  return { core, incarnations, drain };
}

const released = (core: CoreDriver) => core.take("ReleaseWorker").map(({ workerId }) => workerId);
const position = (step: number): LearnerPosition => ({
  stage: "ppo",
  step,
  hash: step === 0 ? "" : `h${step}`,
});
const isReady = (core: CoreDriver, workerId: string, incarnation: number) => {
  core.take("AckHeartbeat");
  core.do({ type: "WorkerHeartbeat", workerId, incarnation });
  return core.takeOne("AckHeartbeat").isReady;
};

describe("a learner that was told to leave", () => {
  it("goes at once while another holds the same state", () => {
    const { core, drain } = afterStep1();
    drain("l1");
    expect(released(core)).toEqual(["l1"]);
  });

  it("stays until the others have copied what it alone holds, and takes no part in a step meanwhile", () => {
    const { core, drain } = afterStep1();
    drain("l1");
    core.requestStep(2);
    core.take("StartStep");
    core.voteAll("h2");
    core.effects = [];
    core.register("l1", "learner", null, -1);
    const { healId, incarnation, source } = core.takeOne("HealLearner");
    expect(source).toMatchObject({ kind: "peer", workerId: "l2" });
    drain("l2");
    core.requestStep(3);
    expect(released(core)).toEqual([]);
    expect(core.take("StartStep")).toEqual([]);
    core.do({ type: "LearnerHealed", workerId: "l1", incarnation, healId, position: position(2) });
    expect(released(core)).toEqual(["l2"]);
    expect(core.takeOne("StartStep")).toMatchObject({
      step: 3,
      isReplay: false,
      members: [{ workerId: "l1" }],
    });
  });

  it("waits for one that has just left to come back, and serves as its source", () => {
    const { core, drain } = afterStep1();
    drain("l1");
    drain("l2");
    expect(released(core)).toEqual(["l1"]);
    core.wait(5_000);
    core.register("l1", "learner", null, -1);
    expect(core.takeOne("HealLearner").source).toMatchObject({ kind: "peer", workerId: "l2" });
  });

  it("waits for one that was told to leave as well, while it was still copying", () => {
    const { core, incarnations, drain } = afterStep1();
    core.do({ type: "WorkerLeft", workerId: "l1", incarnation: incarnations.l1 });
    core.wait(8_000);
    const joiner = core.register("l1", "learner", null, -1);
    core.take("HealLearner");
    drain("l2");
    drain("l1", joiner);
    expect(released(core)).toEqual(["l1"]);
    core.register("l1", "learner", null, -1);
    expect(core.takeOne("HealLearner").source).toMatchObject({ kind: "peer", workerId: "l2" });
  });

  it("waits no longer than drainTimeoutMs; a copy that is on its way by then does not need it", () => {
    const { core, drain } = afterStep1();
    drain("l1");
    drain("l2");
    core.register("l1", "learner", null, -1);
    const { workerId, incarnation, healId } = core.takeOne("HealLearner");
    core.do({ type: "StateLent", workerId, incarnation, healId });
    core.effects = [];
    core.wait(7_999);
    expect(released(core)).toEqual([]);
    core.wait(1);
    expect(released(core)).toEqual(["l2"]);
    core.wait(10_000);
    expect(core.take("HealLearner"), "goes on copying what l2 left").toEqual([]);
    core.do({ type: "LearnerHealed", workerId, incarnation, healId, position: position(1) });
    core.requestStep(2);
    expect(core.takeOne("StartStep")).toMatchObject({ step: 2, isReplay: false });
  });

  it("takes a copy that it had not handed over along: another source is found", () => {
    const { core, drain } = afterStep1({ leaseTtlMs: 20_000 });
    drain("l1");
    drain("l2");
    const incarnation = core.register("l1", "learner", null, -1);
    core.take("HealLearner");
    for (let i = 0; i < 3; i++) {
      core.wait(10_000); // 8 s until l2 goes, then the lease for which whoever voted is waited for
      core.do({ type: "WorkerHeartbeat", workerId: "l1", incarnation });
    }
    expect(core.take("HealLearner").map(({ source }) => source.kind)).toContain("initial");
  });

  it.each(["nobody else is there", "a checkpoint holds its state", "the stage is over", "the run is over"])(
    "goes at once when %s",
    (why) => {
      const { core, incarnations, drain } = afterStep1();
      if (why === "nobody else is there") {
        core.do({ type: "WorkerLeft", workerId: "l1", incarnation: incarnations.l1 });
        core.wait(8_000);
      } else core.register("l1", "learner", null, -1);
      if (why === "a checkpoint holds its state")
        core.do({ type: "CheckpointSaved", checkpointId: "c", stage: "ppo", step: 1, resume: null });
      if (why === "the stage is over") core.do({ type: "StageFinished", stage: "ppo" });
      if (why === "the run is over") core.do({ type: "RunClosing" });
      drain("l2");
      expect(released(core)).toEqual(["l2"]);
    },
  );
});

describe("a learner that joined", () => {
  it("may be counted on once it holds the group's state, not before, and not once it is leaving", () => {
    const { core, incarnations, drain } = afterStep1();
    const joined = core.register("l3", "learner", null, -1);
    expect(isReady(core, "l3", joined)).toBe(false);
    core.heal("h1");
    expect(isReady(core, "l3", joined)).toBe(true);
    core.register("l1", "learner", null, -1);
    core.do({ type: "WorkerDisconnected", workerId: "l3", incarnation: joined });
    drain("l2");
    expect(isReady(core, "l2", incarnations.l2)).toBe(false);
  });

  it("may be counted on while no stage is open", () => {
    const core = new CoreDriver();
    expect(isReady(core, "l1", core.learner("l1"))).toBe(true);
  });
});
