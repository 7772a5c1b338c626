import { describe, expect, it } from "vitest";
import { status } from "../../../../src/coordinator/core/index.js";
import { CoreDriver } from "./core-driver.js";

function stageWith(learners: number, config = {}): CoreDriver {
  const core = new CoreDriver(config);
  core.do({ type: "StageStarted", stage: "ppo" });
  for (let i = 1; i <= learners; i++) core.learner(`l${i}`);
  core.effects = [];
  return core;
}

describe("optimizer step", () => {
  it("prepares in the journal, then starts with contiguous shards in join order", () => {
    const core = stageWith(3);
    core.requestStep(1);
    expect(core.takeOne("journal").record).toMatchObject({ type: "StepPrepared", step: 1, generation: 1 });
    const { members } = core.takeOne("StartStep");
    expect(
      members.map(({ workerId, rank, firstShard, shardCount }) => [workerId, rank, firstShard, shardCount]),
    ).toEqual([
      ["l1", 0, 0, 2],
      ["l2", 1, 2, 1],
      ["l3", 2, 3, 1],
    ]);
  });

  it("commits when the last member votes, and only then", () => {
    const core = stageWith(2);
    core.requestStep(1);
    const { members, generation } = core.takeOne("StartStep");
    core.take("journal");
    const vote = (i: number): void => {
      const { workerId, incarnation } = members[i];
      core.do({ type: "StepVote", workerId, incarnation, generation, step: 1, isFinite: true, hash: "h" });
    };
    vote(0);
    vote(0);
    expect(core.take("CommitStep")).toEqual([]);
    vote(1);
    expect(core.takeOne("journal").record).toEqual({
      type: "StepCommitted",
      stage: "ppo",
      generation,
      step: 1,
      hash: "h",
      holders: ["l1", "l2"],
    });
    expect(core.takeOne("CommitStep")).toMatchObject({ generation, step: 1, hash: "h" });
    expect(core.takeOne("StepFinished")).toMatchObject({ step: 1, outcome: "committed" });
  });

  it.each([
    ["another generation", -1, 0],
    ["another step", 0, 1],
  ])("ignores and counts votes of %s", (_, generationChange, stepChange) => {
    const core = stageWith(1);
    core.requestStep(1);
    core.requestStep(2);
    const { members, generation } = core.takeOne("StartStep");
    const { workerId, incarnation } = members[0];
    const wrong = { generation: generation + generationChange, step: 1 + stepChange };
    core.do({ type: "StepVote", workerId, incarnation, isFinite: true, hash: "h", ...wrong });
    expect(core.take("CommitStep")).toEqual([]);
    expect(status(core.state).counters.staleVotes).toBe(1);
  });

  it("is skipped for everybody by one non-finite vote; three in a row stop the run", () => {
    const core = stageWith(2);
    for (const step of [1, 2, 3]) {
      core.requestStep(step);
      const { workerId, incarnation } = core.takeOne("StartStep").members[1];
      const { generation } = core.state.volatile.activeStep!;
      core.do({ type: "StepVote", workerId, incarnation, generation, step, isFinite: false, hash: "" });
      expect(core.takeOne("SkipStep")).toMatchObject({ step });
      expect(core.takeOne("StepFinished")).toMatchObject({ step, outcome: "skipped" });
    }
    expect(core.take("CommitStep")).toEqual([]);
    expect(core.takeOne("StopRun")).toMatchObject({ code: "NUMERIC" });
  });

  it("starts counting non-finite steps anew after a committed one", () => {
    const core = stageWith(1);
    for (const [step, isFinite] of [
      [1, false],
      [2, false],
      [3, true],
      [4, false],
      [5, false],
    ] as const) {
      core.requestStep(step);
      core.voteAll(`h${step}`, isFinite);
    }
    expect(core.take("StopRun")).toEqual([]);
    expect(status(core.state)).toMatchObject({ step: 5, committedSteps: 1, skippedSteps: 4 });
  });

  it("drops what only a skipped step would have trained, keeps what an earlier epoch did", () => {
    const core = new CoreDriver();
    const ids = core.collectAll(4);
    core.learner("l1");
    core.requestStep(1, ids.slice(0, 2), false);
    core.voteAll("h1");
    core.requestStep(2, ids, true);
    core.voteAll("", false);
    expect(status(core.state).ledger).toMatchObject({
      admitted: 4,
      trained: 2,
      buffered: 0,
      dropped: { skippedStep: 2 },
    });
  });

  it("does the same step again in a new generation when a member is lost, with whoever is left", () => {
    const core = stageWith(2);
    core.requestStep(1);
    const first = core.takeOne("StartStep");
    const { workerId, incarnation } = first.members[0];
    core.do({ type: "WorkerDisconnected", workerId, incarnation });
    expect(core.takeOne("AbortStep")).toMatchObject({ generation: first.generation, reason: "memberLost" });
    const second = core.takeOne("StartStep");
    expect(second.step).toBe(1);
    expect(second.generation).toBeGreaterThan(first.generation);
    expect(second.members.map((member) => [member.workerId, member.shardCount])).toEqual([["l2", 4]]);
  });

  it("is aborted at its deadline; who stays silent while others vote is fenced the second time", () => {
    const core = stageWith(2, { stepTimeoutMs: 1_000, leaseTtlMs: 100_000 });
    core.requestStep(1);
    for (const round of [1, 2]) {
      const { generation, members } = core.takeOne("StartStep");
      const { workerId, incarnation } = members[0];
      core.do({ type: "StepVote", workerId, incarnation, generation, step: 1, isFinite: true, hash: "h" });
      core.wait(1_000);
      expect(core.takeOne("AbortStep").reason).toBe("timeout");
      expect(core.take("FenceWorker").map((fenced) => fenced.workerId)).toEqual(round === 1 ? [] : ["l2"]);
    }
    core.voteAll("h");
    expect(core.takeOne("StepFinished").step).toBe(1);
  });

  it("gets twice the time, up to 8 times, while learners are alive but none votes in time", () => {
    const core = stageWith(2, { stepTimeoutMs: 1_000, leaseTtlMs: 1_000_000, maxStepAttempts: 6 });
    core.requestStep(1);
    for (const seconds of [1, 2, 4]) {
      core.wait(seconds * 1_000 - 1);
      expect(core.take("AbortStep")).toEqual([]);
      core.wait(1);
      expect(core.takeOne("AbortStep")).toMatchObject({
        reason: "timeout",
        detail: `no vote from l1, l2 within ${seconds} s; the next attempt may take ${seconds * 2} s`,
      });
    }
    core.wait(7_999); // a step of 8 s, in the end
    core.voteAll("h1");
    expect(core.takeOne("StepFinished").step).toBe(1);
    core.requestStep(2); // what was learnt holds for the stage
    core.wait(7_999);
    expect(core.take("AbortStep")).toEqual([]);
    for (let attempt = 0; attempt < 6; attempt++) core.wait(8_000);
    const { code, diagnosis } = core.takeOne("StopRun");
    expect(code).toBe("BUDGET");
    expect(diagnosis).toMatch(
      /aborted 6 times .* no vote from l1, l2 within 8 s\); .* raise cluster.stepTimeoutMs/,
    );
  });

  const computed = (core: CoreDriver, ...workerIds: string[]): void => {
    const { generation, manifest, members } = core.state.volatile.activeStep!;
    for (const { workerId, incarnation } of members)
      if (workerIds.includes(workerId))
        core.do({ type: "StepComputed", workerId, incarnation, generation, step: manifest.step });
  };

  it("evicts the one whose gradients never come, and leaves those alone that wait for it", () => {
    const core = stageWith(3, { stepTimeoutMs: 1_000, leaseTtlMs: 1_000_000 });
    core.requestStep(1);
    for (const seconds of [1, 2]) {
      computed(core, "l1", "l3");
      core.wait(seconds * 1_000);
      expect(core.takeOne("AbortStep").detail).toMatch(/^no gradients from l2 within/);
    }
    expect(core.takeOne("FenceWorker")).toMatchObject({ workerId: "l2" });
    expect(core.state.volatile.activeStep!.members.map(({ workerId }) => workerId)).toEqual(["l1", "l3"]);
    core.voteAll("h1");
    expect(core.takeOne("StepFinished").step).toBe(1);
  });

  it("goes on without an evicted learner that is back, at first; then gives it one attempt, and waits twice as long", () => {
    const core = stageWith(2, { stepTimeoutMs: 1_000, leaseTtlMs: 1_000_000 });
    let step = 1;
    const attempt = (): string[] => {
      if (core.state.volatile.activeStep === null) core.requestStep(step++);
      return core.state.volatile.activeStep!.members.map(({ workerId }) => workerId);
    };
    const late = (): void => {
      computed(core, "l1");
      core.wait(core.state.volatile.activeStep!.deadlineMs - core.nowMs);
    };
    attempt();
    late();
    late();
    expect(attempt()).toEqual(["l1"]);
    core.voteAll("h1");
    core.learner("l2", { stage: "ppo", step: 1, hash: "h1" });
    expect(attempt()).toEqual(["l1"]); // still on its own
    core.voteAll("h2");
    core.wait(4_000);
    core.do({ type: "Tick" });
    core.heal("h2");
    expect(attempt()).toEqual(["l1", "l2"]);
    core.take("FenceWorker");
    late(); // once is enough now
    expect(core.takeOne("FenceWorker")).toMatchObject({ workerId: "l2" });
    expect(attempt()).toEqual(["l1"]);
    core.voteAll("h3");
    core.learner("l2", { stage: "ppo", step: 3, hash: "h3" });
    core.wait(8_001);
    expect(attempt()).toEqual(["l1"]); // for 16 s now
    core.voteAll("h4");
    core.wait(8_001);
    core.do({ type: "Tick" });
    core.heal("h4");
    expect(attempt()).toEqual(["l1", "l2"]);
    core.voteAll("h5");
    expect(core.state.volatile.suspects.size).toBe(0);
  });

  it("takes an evicted learner back at once when nobody else is left", () => {
    const core = stageWith(2, { stepTimeoutMs: 1_000, leaseTtlMs: 1_000_000 });
    core.requestStep(1);
    for (const seconds of [1, 2]) {
      computed(core, "l1");
      core.wait(seconds * 1_000);
    }
    expect(core.take("FenceWorker")).toHaveLength(1);
    core.learner("l2", { stage: "ppo", step: 0, hash: "" });
    const { incarnation } = core.state.volatile.members.get("l1")!;
    core.do({ type: "WorkerDisconnected", workerId: "l1", incarnation });
    expect(core.state.volatile.activeStep!.members.map(({ workerId }) => workerId)).toEqual(["l2"]);
  });

  it("is given no more time than a timer can be set for", () => {
    const longestMs = 2 ** 31 - 1; // as cluster.stepTimeoutMs may be
    const core = stageWith(1, { stepTimeoutMs: longestMs, leaseTtlMs: 2 ** 40 });
    core.requestStep(1);
    expect(core.takeOne("StartStep").limitMs).toBe(longestMs);
    core.wait(longestMs);
    expect(core.takeOne("StartStep").limitMs).toBe(longestMs);
  });

  it("tells a learner that stays out for a while that others must not leave for it", () => {
    const core = stageWith(2, { stepTimeoutMs: 1_000, leaseTtlMs: 1_000_000 });
    core.requestStep(1);
    for (const seconds of [1, 2]) {
      computed(core, "l1");
      core.wait(seconds * 1_000);
    }
    const start = { stage: "ppo", step: 0, hash: "" };
    const incarnation = core.learner("l2", start);
    const l1 = core.state.volatile.members.get("l1")!;
    core.do({ type: "WorkerDisconnected", workerId: "l1", incarnation: l1.incarnation });
    expect(core.state.volatile.members.get("l2")!.state, "it is needed").toBe("ready");
    core.learner("l1", start);
    const { generation } = core.state.volatile.activeStep!;
    core.do({ type: "ReduceFailed", generation, step: 1, workerId: null, reason: "a cut link" });
    expect(core.state.volatile.activeStep!.members.map(({ workerId }) => workerId)).toEqual(["l1"]);
    core.take("AckHeartbeat");
    core.do({ type: "WorkerHeartbeat", workerId: "l2", incarnation });
    expect(core.takeOne("AckHeartbeat").isReady).toBe(false);
  });

  it("blames nobody for needing longer than a learner that has nothing to do", () => {
    const core = stageWith(6, { stepTimeoutMs: 1_000, leaseTtlMs: 1_000_000 });
    core.requestStep(1); // four micro-shards
    for (const seconds of [1, 2, 4]) {
      const { members } = core.state.volatile.activeStep!;
      computed(core, ...members.filter(({ shardCount }) => shardCount === 0).map(({ workerId }) => workerId));
      core.wait(seconds * 1_000);
      expect(core.takeOne("AbortStep").detail).toMatch(/^no vote from (l\d, ){5}l\d within/);
    }
    expect(core.take("FenceWorker")).toEqual([]);
    expect(core.state.volatile.suspects.size).toBe(0);
  });

  it("finds the one that hangs among more learners than micro-shards", () => {
    const core = stageWith(6, { stepTimeoutMs: 1_000, leaseTtlMs: 1_000_000 });
    core.requestStep(1); // four micro-shards
    while (core.state.volatile.members.has("l2")) {
      computed(core, "l1", "l3", "l4", "l5", "l6");
      core.wait(core.state.volatile.activeStep!.deadlineMs - core.nowMs);
    }
    expect(core.take("FenceWorker")).toMatchObject([{ workerId: "l2" }]);
  });

  it("remembers blame when a learner connects anew", () => {
    const core = stageWith(2, { stepTimeoutMs: 1_000, leaseTtlMs: 1_000_000 });
    core.requestStep(1);
    const fail = (): void => {
      const { generation } = core.state.volatile.activeStep!;
      core.do({ type: "ReduceFailed", generation, step: 1, workerId: "l2", reason: "its connection broke" });
    };
    fail();
    core.learner("l2", { stage: "ppo", step: 0, hash: "" });
    core.take("FenceWorker"); // the older registration's
    fail();
    expect(core.takeOne("FenceWorker")).toMatchObject({ workerId: "l2", reason: "its connection broke" });
  });

  it("tells how long it waits: a step, and a step that has more time", () => {
    const core = stageWith(1, { stepTimeoutMs: 1_000, leaseTtlMs: 1_000_000 });
    core.requestStep(1);
    expect(core.takeOne("StartStep").limitMs).toBe(1_000);
    core.wait(1_000);
    expect(core.takeOne("StartStep").limitMs).toBe(2_000);
  });

  it("gives a stage the plain time again", () => {
    const core = stageWith(1, { stepTimeoutMs: 1_000, leaseTtlMs: 1_000_000 });
    core.requestStep(1);
    core.wait(1_000);
    expect(core.state.volatile.stepPatience).toBe(2);
    core.do({ type: "StageStarted", stage: "next" });
    expect(core.state.volatile.stepPatience).toBe(1);
  });

  it("stops the run with a diagnosis after maxStepAttempts aborts in a row", () => {
    const core = stageWith(1, { maxStepAttempts: 3 });
    core.requestStep(1);
    for (let i = 0; i < 3; i++) {
      const { generation } = core.state.volatile.activeStep!;
      core.do({ type: "ReduceFailed", generation, step: 1, workerId: null, reason: "bucket 3 missing" });
    }
    const { code, diagnosis } = core.takeOne("StopRun");
    expect(code).toBe("BUDGET");
    expect(diagnosis).toContain("bucket 3 missing");
  });

  it("heals the minority from the majority when hashes differ twice", () => {
    const core = stageWith(3);
    core.requestStep(1);
    for (let round = 0; round < 2; round++) {
      const { generation, members } = core.takeOne("StartStep");
      for (const { workerId, incarnation } of members) {
        const hash = workerId === "l2" ? "bad" : "good";
        core.do({ type: "StepVote", workerId, incarnation, generation, step: 1, isFinite: true, hash });
      }
      expect(core.takeOne("AbortStep").reason).toBe("hashMismatch");
    }
    const heal = core.takeOne("HealLearner");
    expect(heal).toMatchObject({ workerId: "l2", step: 0, source: { kind: "peer" } });
    expect(core.take("CommitStep")).toEqual([]);
  });

  it("sends everybody back to the checkpoint when two learners disagree twice", () => {
    const core = stageWith(2);
    core.requestStep(1);
    core.voteAll("h1");
    core.do({ type: "CheckpointSaved", checkpointId: "c1", stage: "ppo", step: 1, resume: null });
    core.requestStep(2);
    core.effects = [];
    for (let round = 0; round < 2; round++) {
      const { generation, members } = core.state.volatile.activeStep!;
      members.forEach(({ workerId, incarnation }, i) => {
        core.do({
          type: "StepVote",
          workerId,
          incarnation,
          generation,
          step: 2,
          isFinite: true,
          hash: `x${i}`,
        });
      });
    }
    const heals = core.take("HealLearner");
    expect(heals.map(({ workerId, step, source }) => [workerId, step, source])).toEqual([
      ["l1", 1, { kind: "checkpoint", checkpointId: "c1" }],
      ["l2", 1, { kind: "checkpoint", checkpointId: "c1" }],
    ]);
  });

  it("answers a finished step from the journal, refuses a gap and another stage", () => {
    const core = stageWith(1);
    core.requestStep(1);
    core.voteAll("h1");
    core.effects = [];
    core.requestStep(1);
    expect(core.takeOne("StepFinished")).toMatchObject({ step: 1, outcome: "committed", hash: "h1" });
    core.requestStep(3);
    expect(core.takeOne("StepRefused").reason).toBe("the next step is 2");
    core.do({
      type: "StepRequested",
      stage: "sft",
      step: 2,
      experienceIds: [],
      input: null,
      shardCount: 1,
      isFinalUse: true,
    });
    expect(core.takeOne("StepRefused").reason).toBe("the open stage is ppo");
    core.requestStep(2, ["0/0/0"]);
    expect(core.takeOne("StepRefused").missing).toEqual(["0/0/0"]);
  });
});

describe("healing", () => {
  it("brings a joiner to the group's step between steps, and includes it in the next one", () => {
    const core = stageWith(1);
    core.requestStep(1);
    core.register("l2", "learner", null, -1);
    expect(core.take("HealLearner")).toEqual([]);
    core.voteAll("h1");
    const heal = core.takeOne("HealLearner");
    expect(heal).toMatchObject({ workerId: "l2", step: 1, source: { kind: "peer", workerId: "l1" } });
    core.requestStep(2);
    expect(core.take("StartStep").filter(({ step }) => step === 2)).toEqual([]);
    const { workerId, incarnation, healId } = heal;
    core.do({
      type: "LearnerHealed",
      workerId,
      incarnation,
      healId,
      position: { stage: "ppo", step: 1, hash: "h1" },
    });
    expect(core.takeOne("StartStep").members.map((member) => member.workerId)).toEqual(["l1", "l2"]);
  });

  it("believes no copy whose hash is not the one that was voted, and heals its source too", () => {
    const core = stageWith(1);
    core.requestStep(1);
    core.voteAll("h1");
    core.register("l2", "learner", null, -1);
    const { workerId, incarnation, healId } = core.takeOne("HealLearner");
    core.do({
      type: "LearnerHealed",
      workerId,
      incarnation,
      healId,
      position: { stage: "ppo", step: 1, hash: "other" },
    });
    core.wait(5_000);
    expect(core.take("HealLearner").map(({ source }) => source.kind)).toEqual(["initial", "initial"]);
  });

  it("starts no step below minLearners, says so once, and goes on by itself", () => {
    const core = stageWith(1, { minLearners: 2 });
    core.requestStep(1);
    core.do({ type: "Tick" });
    expect(core.takeOne("PauseLearning")).toMatchObject({ readyLearners: 1, minLearners: 2 });
    expect(status(core.state).learning).toBe("paused");
    core.learner("l2");
    expect(core.takeOne("ResumeLearning")).toMatchObject({ readyLearners: 2 });
    expect(core.takeOne("StartStep").members).toHaveLength(2);
  });

  it("continues at once with learners that still hold the committed state after a coordinator restart", () => {
    const core = stageWith(1);
    core.requestStep(1);
    core.voteAll("h1");
    core.restart();
    core.effects = [];
    core.learner("l1", { stage: "ppo", step: 1, hash: "h1" });
    core.requestStep(2);
    expect(core.takeOne("StartStep")).toMatchObject({ step: 2, isReplay: false });
    expect(core.take("HealLearner")).toEqual([]);
  });

  it("does committed steps again, with the same manifest and hash, when everybody who applied them is gone", () => {
    const core = stageWith(1, { regroupMs: 2_000 });
    core.requestStep(1);
    core.voteAll("h1");
    core.do({ type: "CheckpointSaved", checkpointId: "c1", stage: "ppo", step: 1, resume: null });
    core.requestStep(2);
    core.voteAll("h2");
    core.restart();
    core.effects = [];
    const incarnation = core.register("l1", "learner", null, -1);
    expect(core.take("HealLearner")).toEqual([]);
    core.wait(2_000);
    expect(core.state.volatile.members.get("l1")?.incarnation).toBe(incarnation);
    expect(core.effects.filter((effect) => effect.type === "HealLearner")).toMatchObject([
      { step: 1, source: { kind: "checkpoint", checkpointId: "c1" } },
    ]);
    core.heal("h1");
    const replay = core.takeOne("StartStep");
    expect(replay).toMatchObject({ step: 2, isReplay: true, input: { step: 2 } });
    core.take("journal");
    core.voteAll("wrong");
    expect(core.takeOne("AbortStep").reason).toBe("hashMismatch");
    core.take("journal");
    core.voteAll("h2");
    expect(core.takeOne("CommitStep")).toMatchObject({ step: 2, hash: "h2" });
    expect(core.take("journal").map(({ record }) => record.type)).not.toContain("StepCommitted");
    expect(core.take("StepFinished")).toEqual([]);
    expect(status(core.state)).toMatchObject({ step: 2, committedSteps: 2 });
  });

  it("prefers a learner that comes within regroupMs with newer parameters than the checkpoint", () => {
    const core = stageWith(1);
    core.requestStep(1);
    core.voteAll("h1");
    core.restart();
    core.effects = [];
    core.register("l9", "learner", null, -1);
    core.wait(500);
    core.register("l1", "learner", { stage: "ppo", step: 1, hash: "h1" }, -1);
    expect(core.takeOne("HealLearner")).toMatchObject({
      workerId: "l9",
      step: 1,
      source: { kind: "peer", workerId: "l1" },
    });
  });

  it("waits a lease for a learner that voted for the last step, and no longer than regroupMs once all are back", () => {
    const core = stageWith(2, { regroupMs: 2_000, leaseTtlMs: 10_000 });
    core.requestStep(1);
    core.voteAll("h1");
    core.restart();
    core.effects = [];
    const incarnation = core.register("l1", "learner", null, -1);
    const beat = () => core.do({ type: "WorkerHeartbeat", workerId: "l1", incarnation, appliedStep: 0 });
    for (let ms = 0; ms < 9_000; ms += 1_000) {
      core.wait(1_000);
      beat();
    }
    expect(core.take("HealLearner"), "l2 may still hold step 1").toEqual([]);
    core.register("l2", "learner", { stage: "ppo", step: 1, hash: "h1" }, -1);
    expect(core.takeOne("HealLearner")).toMatchObject({
      workerId: "l1",
      source: { kind: "peer", workerId: "l2" },
    });
  });

  it("gives up waiting for a voter after a lease", () => {
    const core = stageWith(2, { regroupMs: 2_000, leaseTtlMs: 10_000 });
    core.requestStep(1);
    core.voteAll("h1");
    core.restart();
    core.effects = [];
    const incarnation = core.register("l1", "learner", null, -1);
    for (let ms = 0; ms < 10_000; ms += 1_000) {
      expect(core.take("HealLearner")).toEqual([]);
      core.wait(1_000);
      core.do({ type: "WorkerHeartbeat", workerId: "l1", incarnation, appliedStep: 0 });
    }
    expect(core.takeOne("HealLearner")).toMatchObject({ workerId: "l1", source: { kind: "initial" } });
  });

  it("lets learners that voted but heard no commit apply it, instead of computing the step again", () => {
    const core = stageWith(2);
    core.requestStep(1);
    core.voteAll("h1");
    core.requestStep(2);
    core.voteAll("h2");
    core.restart(); // step 2 is in the journal, nobody was told
    core.effects = [];
    const voted = { step: 2, hash: "h2" };
    core.register("l1", "learner", { stage: "ppo", step: 1, hash: "h1", voted }, -1);
    core.register("l2", "learner", { stage: "ppo", step: 1, hash: "h1", voted }, -1);
    const orders = core.effects.filter((effect) => effect.type === "HealLearner");
    expect(orders).toMatchObject([
      { workerId: "l1", step: 2, source: { kind: "vote", hash: "h2" } },
      { workerId: "l2", step: 2, source: { kind: "vote", hash: "h2" } },
    ]);
    core.heal("h2");
    core.requestStep(3);
    expect(core.takeOne("StartStep")).toMatchObject({ step: 3, isReplay: false });
    expect(core.journal.map(({ type }) => type)).not.toContain("GenerationOpened");
  });

  it.each([
    ["another hash than the journal's", { step: 2, hash: "h3" }],
    ["a step that was never committed", { step: 3, hash: "h3" }],
    ["a step before the last", { step: 1, hash: "h1" }],
  ])("lets nobody apply a vote with %s", (_, voted) => {
    const core = stageWith(1);
    core.requestStep(1);
    core.voteAll("h1");
    core.requestStep(2);
    core.voteAll("h2");
    core.restart();
    core.effects = [];
    core.register("l1", "learner", { stage: "ppo", step: 1, hash: "h1", voted }, -1);
    core.wait(2_000);
    expect(core.take("HealLearner")).toEqual([]);
    expect(core.takeOne("StartStep")).toMatchObject({ step: 2, isReplay: true });
  });

  it("goes on without the vote when the learner dies while it applies it", () => {
    const core = stageWith(1);
    core.requestStep(1);
    core.voteAll("h1");
    core.restart();
    core.effects = [];
    const voted = { step: 1, hash: "h1" };
    const incarnation = core.register("l1", "learner", { stage: "ppo", step: 0, hash: "", voted }, -1);
    expect(core.takeOne("HealLearner").source.kind).toBe("vote");
    core.do({ type: "WorkerDisconnected", workerId: "l1", incarnation });
    core.register("l1", "learner", null, -1);
    core.wait(2_000);
    expect(core.effects.find((effect) => effect.type === "HealLearner")).toMatchObject({
      step: 0,
      source: { kind: "initial" },
    });
    core.heal();
    expect(core.takeOne("StartStep")).toMatchObject({ step: 1, isReplay: true });
  });

  it("lets the minority copy from the majority when whole states differ", () => {
    const core = stageWith(3);
    core.requestStep(1);
    core.voteAll("h1");
    core.effects = [];
    const states = ["l1", "l2", "l3"].map((workerId) => ({
      workerId,
      sha256: workerId === "l2" ? "b" : "a",
    }));
    core.do({ type: "StatesDiffer", step: 1, states });
    const { workerId, source } = core.takeOne("HealLearner");
    expect(workerId).toBe("l2");
    expect(source).toMatchObject({ kind: "peer" });
    expect(core.take("StopRun")).toEqual([]);
  });

  it("ends the run when whole states differ and no majority agrees", () => {
    const core = stageWith(2);
    core.requestStep(1);
    core.voteAll("h1");
    const states = ["l1", "l2"].map((workerId) => ({ workerId, sha256: workerId }));
    core.do({ type: "StatesDiffer", step: 1, states });
    const { code, diagnosis } = core.takeOne("StopRun");
    expect(code).toBe("DATA");
    expect(diagnosis).toMatch(/different parameters or moments after step 1 of ppo \(l1 l1, l2 l2\)/);
  });

  it("heals a learner that reports an older step for longer than a commit can take", () => {
    const core = stageWith(2, { leaseTtlMs: 5_000 });
    core.requestStep(1);
    core.voteAll("h1");
    const beat = (): void => {
      for (const { workerId, incarnation } of core.state.volatile.members.values()) {
        core.do({ type: "WorkerHeartbeat", workerId, incarnation, appliedStep: workerId === "l2" ? 0 : 1 });
      }
    };
    beat();
    core.wait(4_000);
    beat();
    expect(core.take("HealLearner")).toEqual([]);
    core.wait(2_000);
    beat();
    expect(core.takeOne("HealLearner")).toMatchObject({
      workerId: "l2",
      step: 1,
      source: { kind: "peer", workerId: "l1" },
    });
  });

  it("believes a learner that keeps saying it stands further than its last complaint said", () => {
    const core = stageWith(1, { leaseTtlMs: 5_000 });
    core.requestStep(1);
    core.voteAll("h1");
    core.requestStep(2);
    const { workerId, incarnation } = core.take("StartStep").at(-1)!.members[0];
    const { generation } = core.state.volatile.activeStep!;
    core.do({ type: "LearnerBehind", workerId, incarnation, generation, appliedStep: 0 });
    core.wait(3_000);
    expect(status(core.state).learning).toBe("replaying");
    for (let i = 0; i < 4; i++) {
      core.do({ type: "WorkerHeartbeat", workerId, incarnation, appliedStep: 1 });
      core.wait(2_000);
    }
    expect(core.take("StartStep").at(-1)).toMatchObject({ step: 2, isReplay: false });
  });

  it("finds a joiner another source at once when the one it copies from is gone", () => {
    const core = stageWith(2);
    core.requestStep(1);
    core.voteAll("h1");
    core.register("l3", "learner", null, -1);
    const { source } = core.takeOne("HealLearner");
    if (source.kind !== "peer") throw new Error(`healed from ${source.kind}`);
    core.do({ type: "WorkerDisconnected", workerId: source.workerId, incarnation: source.incarnation });
    const { workerId, source: other } = core.takeOne("HealLearner");
    expect(workerId).toBe("l3");
    expect(other).toMatchObject({ kind: "peer", workerId: source.workerId === "l1" ? "l2" : "l1" });
  });

  it.each([
    ["a step nobody finished", { stage: "ppo", step: 2, hash: "h2" }],
    ["another stage", { stage: "sft", step: 1, hash: "h1" }],
    ["another history", { stage: "ppo", step: 1, hash: "other" }],
  ])("does not believe a learner that claims to stand at %s", (_, position) => {
    const core = stageWith(1);
    core.requestStep(1);
    core.voteAll("h1");
    core.register("l2", "learner", position, -1);
    expect(core.takeOne("HealLearner")).toMatchObject({ workerId: "l2", step: 1 });
  });

  it("stops the run when nobody can load the starting model", () => {
    const core = new CoreDriver({ maxStepAttempts: 4 });
    core.do({ type: "StageStarted", stage: "ppo" });
    const incarnation = core.register("l1", "learner", null, -1);
    for (let i = 0; i < 4; i++) {
      const { healId } = core.takeOne("HealLearner");
      core.do({ type: "LearnerHealFailed", workerId: "l1", incarnation, healId, reason: "file is missing" });
    }
    expect(core.takeOne("StopRun")).toMatchObject({ code: "DATA" });
  });

  it("starts a new stage from its initial model, at step 0, for every learner", () => {
    const core = stageWith(2);
    core.requestStep(1);
    core.voteAll("h1");
    core.do({ type: "StageFinished", stage: "ppo" });
    core.effects = [];
    core.do({ type: "StageStarted", stage: "next" });
    expect(core.take("HealLearner").map(({ stage, step, source }) => [stage, step, source.kind])).toEqual([
      ["next", 0, "initial"],
      ["next", 0, "initial"],
    ]);
    expect(status(core.state)).toMatchObject({ stage: "next", step: 0, finishedStages: ["ppo"] });
  });
});
