import { describe, expect, it } from "vitest";
import { status, type CoreConfig } from "../../../../src/coordinator/core/index.js";
import { CoreDriver } from "./core-driver.js";

const TIMES = { healPatienceMs: 1_000, healTimeoutMs: 60_000, leaseTtlMs: 1_000_000, stepTimeoutMs: 900_000 };

function stageWith(learners: readonly string[], config: Partial<CoreConfig> = {}): CoreDriver {
  const core = new CoreDriver({ ...TIMES, ...config });
  core.do({ type: "StageStarted", stage: "ppo", minibatchesPerStep: 1 });
  for (const workerId of learners) core.learner(workerId);
  core.effects = [];
  return core;
}

/** One step by whoever is ready. */
function step(core: CoreDriver, number: number): string[] {
  core.requestStep(number);
  const members = core.takeOne("StartStep").members.map(({ workerId }) => workerId);
  core.voteAll(`h${number}`);
  return members;
}

describe("a learner that copies for long", () => {
  it("is waited for, then trained on without, and is not fenced before healTimeoutMs", () => {
    const core = stageWith(["l1"]);
    const incarnation = core.register("l2", "learner", null, -1);
    core.requestStep(1);
    core.wait(999);
    expect(core.take("StartStep")).toEqual([]);
    core.wait(1);
    expect(core.takeOne("StartStep").members.map(({ workerId }) => workerId)).toEqual(["l1"]);
    core.voteAll("h1");
    core.wait(58_999);
    expect(core.take("FenceWorker")).toEqual([]);
    core.wait(1);
    expect(core.takeOne("FenceWorker")).toMatchObject({ workerId: "l2", incarnation });
  });

  it("is waited for twice as long after each copy that came too late, until one is in time", () => {
    const core = stageWith(["l1"]);
    core.register("l2", "learner", null, -1);
    let done = 0;
    const copyTakes = (ms: number) => {
      const heal = core.take("HealLearner").at(-1)!;
      core.wait(ms);
      if (core.state.volatile.members.get("l2")!.heal!.holdsUpUntilMs <= core.nowMs)
        expect(step(core, ++done), "the others went on").toEqual(["l1"]);
      const { workerId, incarnation, healId, stage } = heal;
      const hash = heal.step === 0 ? "" : `h${heal.step}`;
      core.do({
        type: "LearnerHealed",
        ...{ workerId, incarnation, healId },
        position: { stage, step: heal.step, hash },
      });
    };
    for (let i = 0; i < 3; i++) copyTakes(3_500); // waited for 1 s, 2 s, 4 s
    expect(done).toBe(2);
    expect(step(core, 3)).toEqual(["l1", "l2"]);
    expect(core.state.volatile.members.get("l2")).toMatchObject({ lateHeals: 0, state: "ready" });
  });

  it("alone does not end the run, whose learners are loading and not missing, before it is given up", () => {
    const core = stageWith([], { waitForWorkersMs: 10_000 });
    core.register("l1", "learner", null, -1);
    core.requestStep(1);
    core.wait(59_999);
    expect(core.take("StopRun")).toEqual([]);
    core.wait(1);
    const { code, diagnosis } = core.takeOne("StopRun");
    expect(code).toBe("UNREACHABLE");
    expect(diagnosis).toContain(
      "l1: it was not done with loading or copying parameters within 60 s (cluster.healTimeoutMs)",
    );
  });

  it("keeps its source from a step, and nobody blames that for it", () => {
    const core = stageWith(["l1", "l2"], { stepTimeoutMs: 1_000, maxStepAttempts: 2 });
    const incarnation = core.register("l3", "learner", null, -1);
    const { healId, source } = core.takeOne("HealLearner");
    core.requestStep(1);
    core.wait(1_000);
    const attempt = (seconds: number): void => {
      const { generation, members } = core.takeOne("StartStep");
      for (const { workerId, incarnation } of members)
        if (source.kind === "peer" && incarnation !== source.incarnation)
          core.do({ type: "StepComputed", workerId, incarnation, generation, step: 1 });
      core.wait(seconds * 1_000);
      expect(core.takeOne("AbortStep").reason).toBe("timeout");
    };
    for (const seconds of [1, 2, 4]) attempt(seconds);
    expect(core.take("FenceWorker")).toEqual([]);
    expect(core.take("StopRun")).toEqual([]);
    core.do({ type: "StateLent", workerId: "l3", incarnation, healId });
    attempt(8);
    attempt(8);
    expect(core.takeOne("FenceWorker")).toMatchObject({
      workerId: source.kind === "peer" && source.workerId,
    });
  });

  it("does not end a run whose only learner it copies from", () => {
    const core = stageWith(["l1"], { stepTimeoutMs: 1_000, maxStepAttempts: 2 });
    core.register("l2", "learner", null, -1);
    core.requestStep(1);
    core.wait(1_000);
    for (const seconds of [1, 2, 4]) core.wait(seconds * 1_000);
    expect(core.take("AbortStep")).toHaveLength(3);
    expect(core.take("StopRun")).toEqual([]);
  });

  it("ends the run when what it copies is wrong again and again", () => {
    const core = stageWith(["l1"], { maxStepAttempts: 4 });
    step(core, 1);
    core.register("l2", "learner", null, -1);
    for (let i = 0; i < 4; i++) {
      const heal = core.take("HealLearner").at(-1)!;
      const { workerId, incarnation, healId } = heal;
      expect(core.take("StopRun")).toEqual([]);
      core.do({
        type: "LearnerHealed",
        workerId,
        incarnation,
        healId,
        position: { stage: "ppo", step: 7, hash: "" },
      });
    }
    expect(core.takeOne("StopRun")).toMatchObject({ code: "DATA" });
  });
});

describe("a learner that is stuck", () => {
  it("is fenced when it does not answer, and another takes its place", () => {
    const core = stageWith(["l1", "l2"]);
    const { incarnation } = core.state.volatile.members.get("l1")!;
    core.do({ type: "LearnerSilent", workerId: "l1", incarnation: incarnation - 1, reason: "publish" });
    expect(core.take("FenceWorker"), "an older process of that name").toEqual([]);
    core.do({ type: "LearnerSilent", workerId: "l1", incarnation, reason: "publish" });
    expect(core.takeOne("FenceWorker")).toMatchObject({ workerId: "l1", incarnation, reason: "publish" });
    expect(step(core, 1)).toEqual(["l2"]);
  });

  it("ends the run when it is asked again and again and no step commits in between", () => {
    const core = stageWith([], { maxStepAttempts: 3 });
    const joinAndBeSilent = (reason: string) => {
      const incarnation = core.learner("l1");
      core.do({ type: "LearnerSilent", workerId: "l1", incarnation, reason });
    };
    for (let i = 0; i < 2; i++) joinAndBeSilent("evaluate");
    core.learner("l1");
    step(core, 1);
    for (let i = 0; i < 2; i++) joinAndBeSilent("evaluate");
    expect(core.take("StopRun")).toEqual([]);
    joinAndBeSilent("publish");
    expect(core.takeOne("StopRun")).toMatchObject({
      code: "BUDGET",
      diagnosis: expect.stringMatching(/^l1 was given up 3 times .*\(last: publish\)/) as string,
    });
  });
});

describe("learners that are wanted between steps", () => {
  it("are missed: it is said after a lease, and ends the run when nobody comes", () => {
    const core = stageWith([], { leaseTtlMs: 2_000, waitForWorkersMs: 20_000 });
    core.do({ type: "LearnersAwaited", isAwaited: true });
    core.wait(1_999);
    expect(core.take("PauseLearning")).toEqual([]);
    core.wait(1);
    expect(core.takeOne("PauseLearning")).toMatchObject({ readyLearners: 0, minLearners: 1 });
    expect(status(core.state).learning).toBe("paused");
    core.wait(17_999);
    expect(core.take("StopRun")).toEqual([]);
    core.wait(1);
    expect(core.takeOne("StopRun").code).toBe("UNREACHABLE");
  });

  it("are not missed once one is there, or nobody wants any more", () => {
    const core = stageWith([], { waitForWorkersMs: 20_000, minLearners: 2 });
    core.do({ type: "LearnersAwaited", isAwaited: true });
    core.wait(15_000);
    core.learner("l1"); // one of two can evaluate
    core.wait(15_000);
    core.do({ type: "LearnersAwaited", isAwaited: false });
    core.wait(60_000);
    expect(core.take("StopRun")).toEqual([]);
  });
});

describe("tasks", () => {
  it("end the run beside a rollout worker that never takes one", () => {
    const core = new CoreDriver({ waitForWorkersMs: 5_000, leaseTtlMs: 1_000_000 });
    core.collect(1);
    core.register("r1", "rollout", null, -1);
    core.wait(4_999);
    expect(core.take("StopRun")).toEqual([]);
    core.wait(1);
    expect(core.takeOne("StopRun").diagnosis).toContain("no rollout worker that takes tasks");
  });

  it("wait for one that is busy, but not for one that is leaving", () => {
    const core = new CoreDriver({ waitForWorkersMs: 5_000, leaseTtlMs: 1_000_000, taskTimeoutMs: 1_000_000 });
    core.collect(2, 1);
    const incarnation = core.rollout("r1", 1);
    core.wait(20_000);
    expect(core.take("StopRun")).toEqual([]);
    core.do({ type: "WorkerDraining", workerId: "r1", incarnation });
    core.wait(5_000);
    expect(core.takeOne("StopRun").code).toBe("UNREACHABLE");
  });
});
