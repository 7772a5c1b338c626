import { describe, expect, it } from "vitest";
import type { InjectedFault, PlannedFault } from "../../../src/chaos/faults.js";
import { quantile, recoveryTimes, type LogLine } from "../../../src/chaos/recovery.js";

const fault = (
  role: PlannedFault["role"],
  atMs: number,
  name: string,
  survivors: number[] = [],
): InjectedFault => ({
  planned: { number: 1, role, signal: "SIGKILL", phase: "updating", delayMs: 0, stoppedMs: 0, pick: 0 },
  run: 1,
  atMs,
  name,
  pid: 9,
  phase: "updating",
  stage: "ppo",
  iteration: 0,
  optimizerStep: 2,
  survivors,
});
const line = (atMs: number, msg: string, fields: object = {}): LogLine => ({ atMs, msg, ...fields });

describe("recovery times", () => {
  it("of a rollout worker end when its own task is handed out again", () => {
    const log = [
      line(900, "task handed out again", { before: "rollout-1" }), // before the fault
      line(1_100, "task handed out again", { before: "rollout-0" }), // somebody else's
      line(1_250, "task handed out again", { before: "rollout-1" }),
    ];
    const { rolloutReleased } = recoveryTimes([fault("rollout", 1_000, "rollout-1")], log, []);
    expect(rolloutReleased).toEqual([250]);
  });

  it("of a rollout worker begin with the notice that it is gone", () => {
    const log = [
      line(1_004, "worker lost, its work goes to others", { worker_id: "rollout-0" }), // somebody else
      line(1_006, "worker lost, its work goes to others", { worker_id: "rollout-1" }),
    ];
    const times = recoveryTimes([fault("rollout", 1_000, "rollout-1")], log, []);
    expect(times).toMatchObject({ rolloutNoticed: [6], rolloutReleased: [] });
  });

  it("of a learner end when the step given up is committed", () => {
    const log = [line(1_010, "optimizer step given up, it will be done again", { step: 3 })];
    const progress = [
      { atMs: 1_005, stage: "ppo", step: 2 }, // seen late, done before
      { atMs: 1_400, stage: "ppo", step: 3 },
    ];
    expect(recoveryTimes([fault("learner", 1_000, "learner-0")], log, progress).learnersRegrouped).toEqual([
      400,
    ]);
    expect(recoveryTimes([fault("learner", 1_000, "learner-0")], [], progress).learnersRegrouped).toEqual([]);
  });

  it("of the coordinator are its return, and then the last of its workers", () => {
    const log = [
      line(1_700, "coordinator listens"),
      line(1_800, "worker joined", { pid: 11 }),
      line(1_950, "worker joined", { pid: 12 }),
      line(2_900, "worker joined", { pid: 13 }), // started after the fault
    ];
    const times = recoveryTimes([fault("coordinator", 1_000, "coordinator-0", [11, 12])], log, []);
    expect(times.coordinatorBack).toEqual([700]);
    expect(times.workersAttached).toEqual([250]);
  });

  it("of a worker that was stopped and given up begin when it goes on", () => {
    const stopped = fault("learner", 1_000, "learner-0");
    const one = { ...stopped, planned: { ...stopped.planned, signal: "SIGSTOP" as const, stoppedMs: 5_000 } };
    const back = line(6_300, "worker came back", { pid: 9 });
    const lost = line(5_000, "worker lost, its work goes to others", { worker_id: "learner-0" });
    expect(recoveryTimes([one], [lost, back], []).strangersBack).toEqual([300]);
    expect(recoveryTimes([one], [back], []).strangersBack, "its lease held").toEqual([]);
  });

  it("are not counted when the next fault came first", () => {
    const log = [line(1_250, "task handed out again", { before: "rollout-1" })];
    const faults = [fault("rollout", 1_000, "rollout-1"), fault("learner", 1_200, "learner-0")];
    expect(recoveryTimes(faults, log, []).rolloutReleased).toEqual([]);
  });
});

describe("a quantile", () => {
  it("is a value that was seen, by nearest rank", () => {
    const values = [5, 1, 4, 2, 3];
    expect([0, 0.5, 0.95, 1].map((q) => quantile(values, q))).toEqual([1, 3, 5, 5]);
    expect(quantile([], 0.5)).toBeUndefined();
  });
});
