import { describe, expect, it } from "vitest";
import { status } from "../../../../src/coordinator/core/index.js";
import { CoreDriver } from "./core-driver.js";

/** A stage of rounds with learners l1, l2, ..., and the first round under way. */
function roundWith(learners: number, config = {}) {
  const core = new CoreDriver({ round: { timeoutMs: 50_000 }, ...config });
  core.do({ type: "StageStarted", stage: "ppo" });
  for (let i = 1; i <= learners; i++) core.learner(`l${i}`);
  core.effects = [];
  core.requestStep(1);
  const { generation, members } = core.takeOne("StartStep");
  const trained = (...workerIds: string[]) =>
    core.do({ type: "RoundTrained", generation, step: 1, workerIds, leftOut: [] });
  const vote = (workerId: string, hash = "h") => {
    const { incarnation } = members.find((member) => member.workerId === workerId)!;
    core.do({ type: "StepVote", workerId, incarnation, generation, step: 1, isFinite: true, hash });
  };
  const lose = (workerId: string) => {
    const { incarnation } = members.find((member) => member.workerId === workerId)!;
    core.do({ type: "WorkerDisconnected", workerId, incarnation });
  };
  return { core, generation, trained, vote, lose };
}
const ids = (members: readonly { workerId: string }[]) => members.map(({ workerId }) => workerId);

describe("a round of parameter averaging", () => {
  it("averages over those who trained and commits by their votes alone", () => {
    const { core, trained, vote } = roundWith(2);
    trained("l1", "l2");
    expect(ids(core.takeOne("AverageRound").members)).toEqual(["l1", "l2"]);
    vote("l1");
    expect(core.take("CommitStep")).toEqual([]);
    vote("l2");
    expect(ids(core.takeOne("CommitStep").members)).toEqual(["l1", "l2"]);
    expect(core.takeOne("StepFinished")).toMatchObject({ step: 1, outcome: "committed" });
  });

  it("goes on without a learner that is lost while it trains", () => {
    const { core, generation, lose, trained, vote } = roundWith(3);
    lose("l2");
    expect(core.takeOne("LeaveRound")).toMatchObject({ generation, step: 1, workerId: "l2" });
    expect(core.take("AbortStep")).toEqual([]);
    trained("l1", "l3");
    vote("l1");
    vote("l3");
    expect(ids(core.takeOne("CommitStep").members)).toEqual(["l1", "l3"]);
    expect(status(core.state).counters.stepsAborted).toBe(0);
  });

  it("does without a learner that is too late again, for a while; the first time it is back at once", () => {
    const { core, trained } = roundWith(2, { stepTimeoutMs: 1_000, leaseTtlMs: 1_000_000 });
    const finish = (...workerIds: string[]): void => {
      const { generation, manifest } = core.state.volatile.activeStep!;
      core.do({ type: "RoundTrained", generation, step: manifest.step, workerIds, leftOut: [] });
      core.voteAll(`h${manifest.step}`);
      core.requestStep(manifest.step + 1);
    };
    const back = (): string[] => {
      core.learner("l2");
      return ids(core.state.volatile.activeStep!.members);
    };
    trained("l1");
    core.voteAll("h1");
    core.learner("l2");
    core.requestStep(2);
    expect(ids(core.state.volatile.activeStep!.members)).toEqual(["l1", "l2"]);
    finish("l1");
    expect(back()).toEqual(["l1"]);
    finish("l1"); // the third round, too, is l1's alone
    expect(ids(core.state.volatile.activeStep!.members)).toEqual(["l1"]);
    core.wait(1_000);
    finish("l1");
    core.heal();
    expect(ids(core.state.volatile.activeStep!.members)).toEqual(["l1", "l2"]);
    finish("l1", "l2");
    expect(core.state.volatile.suspects.size).toBe(0);
  });

  it("is given up when the last learner that trains is lost", () => {
    const { core, lose } = roundWith(2);
    lose("l1");
    lose("l2");
    expect(core.takeOne("AbortStep")).toMatchObject({ step: 1, reason: "memberLost" });
  });

  it("fences who is too late for it, and heals it from the others when it comes again", () => {
    const { core, trained, vote } = roundWith(3);
    trained("l1", "l3");
    expect(core.takeOne("FenceWorker")).toMatchObject({ workerId: "l2" });
    vote("l1");
    vote("l3");
    expect(ids(core.takeOne("CommitStep").members)).toEqual(["l1", "l3"]);
    core.do({
      type: "WorkerRegistered",
      workerId: "l2",
      role: "learner",
      requestId: "again",
      position: { stage: "ppo", step: 0, hash: "" },
      policyVersion: -1,
    } as never);
    expect(core.takeOne("HealLearner")).toMatchObject({ workerId: "l2", step: 1, source: { kind: "peer" } });
  });

  it("needs all of its members once the average has begun", () => {
    const { core, lose, trained } = roundWith(3);
    trained("l1", "l2", "l3");
    lose("l2");
    expect(core.takeOne("AbortStep")).toMatchObject({ step: 1, reason: "memberLost" });
    const again = core.takeOne("StartStep");
    expect(again.step).toBe(1);
    expect(ids(again.members)).toEqual(["l1", "l3"]);
  });

  it("hears of its end once: a report of an older generation changes nothing", () => {
    const { core, generation, trained } = roundWith(2);
    core.do({ type: "RoundTrained", generation: generation - 1, step: 1, workerIds: ["l1"], leftOut: [] });
    trained();
    expect(core.take("AverageRound")).toEqual([]);
    trained("l1", "l2");
    trained("l1");
    expect(core.take("AverageRound")).toHaveLength(1);
    expect(core.take("FenceWorker")).toEqual([]);
  });

  it("asks again for its end when that counts on a learner that left meanwhile, with what it left out", () => {
    const { core, generation, lose, trained } = roundWith(2);
    lose("l2");
    trained("l1", "l2"); // decided before the shell heard
    expect(core.takeOne("LeaveRound")).toMatchObject({ generation, workerId: "l2" });
    expect(core.take("AverageRound")).toEqual([]);
    trained("l1");
    expect(ids(core.takeOne("AverageRound").members)).toEqual(["l1"]);
  });

  it("sends members whose parameters differ from the majority's to heal", () => {
    const { core, trained, vote, generation } = roundWith(3);
    trained("l1", "l2", "l3");
    vote("l1", "same");
    vote("l2", "same");
    vote("l3", "other");
    expect(core.takeOne("AbortStep")).toMatchObject({ reason: "hashMismatch", generation });
  });

  it("counts as trained what some learner trained in some epoch, and the rest as left out, over a restart too", () => {
    const core = new CoreDriver({ round: { timeoutMs: 50_000 } });
    const [a, b, c, d] = core.collectAll(4);
    core.learner("l1");
    core.effects = [];
    const round = (step: number, isFinalUse: boolean, leftOut: readonly string[]) => {
      core.requestStep(step, [a, b, c, d], isFinalUse);
      const { generation } = core.takeOne("StartStep");
      core.do({ type: "RoundTrained", generation, step, workerIds: ["l1"], leftOut });
      core.voteAll(`h${step}`);
    };
    round(1, false, [c, d]);
    expect(status(core.state).ledger).toMatchObject({ admitted: 4, trained: 0, buffered: 4, dropped: {} });
    round(2, true, [b, d]);
    const expected = { admitted: 4, trained: 3, buffered: 0, dropped: { leftOut: 1 } };
    expect(status(core.state).ledger).toMatchObject(expected);
    core.restart();
    expect(status(core.state).ledger).toMatchObject(expected);
  });

  it("counts nothing of a round that is given up: what is left out is what the repeated one leaves out", () => {
    const core = new CoreDriver({ round: { timeoutMs: 50_000 } });
    const ids = core.collectAll(2);
    for (const name of ["l1", "l2"]) core.learner(name);
    core.effects = [];
    core.requestStep(1, ids);
    const { generation, members } = core.takeOne("StartStep");
    core.do({ type: "RoundTrained", generation, step: 1, workerIds: ["l1", "l2"], leftOut: [ids[1]] });
    core.do({ type: "WorkerDisconnected", ...members[1] });
    const again = core.takeOne("StartStep");
    core.do({
      type: "RoundTrained",
      generation: again.generation,
      step: 1,
      workerIds: ["l1"],
      leftOut: [],
    });
    core.voteAll("h");
    expect(status(core.state).ledger).toMatchObject({ admitted: 2, trained: 2, buffered: 0, dropped: {} });
  });

  it("has a time limit of its own while it trains, and a step's when it averages", () => {
    const { core, trained } = roundWith(2, { stepTimeoutMs: 5_000 });
    expect(core.state.volatile.activeStep!.deadlineMs - core.state.volatile.nowMs).toBe(50_000);
    trained("l1", "l2");
    expect(core.state.volatile.activeStep!.deadlineMs - core.state.volatile.nowMs).toBe(5_000);
  });

  it("is done again when it was committed and is not finite when it is repeated", () => {
    const { core, trained, vote } = roundWith(1);
    trained("l1");
    vote("l1");
    core.restart();
    core.effects = [];
    core.learner("l1"); // its state is lost
    core.wait(3_000);
    core.heal();
    for (const hash of ["", "other"]) {
      const { generation, members, isReplay } = core.takeOne("StartStep");
      expect(isReplay).toBe(true);
      core.do({ type: "RoundTrained", generation, step: 1, workerIds: ["l1"], leftOut: [] });
      const [{ workerId, incarnation }] = members;
      const isFinite = hash !== "";
      core.do({ type: "StepVote", workerId, incarnation, generation, step: 1, isFinite, hash });
    }
    expect(core.takeOne("CommitStep")).toMatchObject({ step: 1, hash: "other" });
    expect(core.state.durable).toMatchObject({ finishedStep: 1, committedSteps: 1, skippedSteps: 0 });
    core.restart();
  });
});
