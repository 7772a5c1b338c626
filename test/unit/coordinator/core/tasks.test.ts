import { describe, expect, it } from "vitest";
import { status } from "../../../../src/coordinator/core/index.js";
import { CoreDriver } from "./core-driver.js";

const EVALUATION = ["e1", "e2"].map((taskId) => ({ taskId, experienceIds: [`${taskId}/0/0`] }));

describe("rollout tasks", () => {
  it("go oldest first to the worker with the fewest tasks, then in join order", () => {
    const core = new CoreDriver();
    core.rollout("r1", 2, 0);
    core.rollout("r2", 1, 0);
    core.collect(4, 1);
    const assigned = core.take("AssignTask").map(({ workerId, taskId }) => `${taskId} ${workerId}`);
    expect(assigned).toEqual(["task-0-0 r1", "task-0-1 r2", "task-0-2 r1"]);
    expect(status(core.state).tasks).toMatchObject({ waiting: 1, leased: 3 });
  });

  it("never exceed the credits of a worker, however often it repeats them", () => {
    const core = new CoreDriver();
    core.collect(4, 1);
    const incarnation = core.rollout("r1", 1);
    for (let i = 0; i < 3; i++)
      core.do({ type: "WorkerReady", workerId: "r1", incarnation, credits: 1, policyVersion: 0 });
    expect(core.take("AssignTask")).toHaveLength(1);
  });

  it("are given to another worker at once when a stream breaks, with only the open ids", () => {
    const core = new CoreDriver();
    core.collect(3);
    const incarnation = core.rollout("r1");
    core.rollout("r2");
    const first = core.takeOne("AssignTask");
    core.deliver("0/1/0", first);
    core.do({ type: "WorkerDisconnected", workerId: "r1", incarnation });
    expect(core.takeOne("AssignTask")).toMatchObject({
      workerId: "r2",
      attempt: 2,
      experienceIds: ["0/0/0", "0/2/0"],
    });
  });

  it("are given away when the holder's lease or the task's time runs out, but not while it makes progress", () => {
    const core = new CoreDriver({ leaseTtlMs: 1_000, taskTimeoutMs: 5_000 });
    core.collect(1);
    const incarnation = core.rollout("r1");
    const task = core.takeOne("AssignTask");
    const beat = (tokens: number): void => {
      const progress = [{ taskId: task.taskId, attempt: 1, tokens }];
      core.do({ type: "WorkerHeartbeat", workerId: "r1", incarnation, policyVersion: 0, progress });
    };
    for (let i = 1; i <= 20; i++) {
      core.wait(500);
      beat(i);
    }
    expect(core.take("CancelTask")).toEqual([]);
    for (let i = 0; i < 12; i++) {
      core.wait(500);
      beat(20);
    }
    expect(core.takeOne("CancelTask")).toMatchObject({ workerId: "r1", attempt: 1 });
    core.wait(1_000);
    expect(core.takeOne("FenceWorker")).toMatchObject({ workerId: "r1", incarnation });
  });

  it("prefer a worker that did not fail them, and come back to one that did when nobody else can", () => {
    const core = new CoreDriver({ leaseTtlMs: 1_000 });
    core.collect(1);
    const r1 = core.rollout("r1");
    const first = core.takeOne("AssignTask");
    core.rollout("r2", 0);
    core.do({
      type: "TaskFailed",
      workerId: "r1",
      incarnation: r1,
      taskId: first.taskId,
      attempt: 1,
      reason: "x",
    });
    expect(core.take("AssignTask")).toEqual([]);
    core.do({ type: "WorkerHeartbeat", workerId: "r1", incarnation: r1 });
    core.wait(999);
    core.do({ type: "WorkerHeartbeat", workerId: "r1", incarnation: r1 });
    expect(core.take("AssignTask")).toEqual([]);
    core.wait(2);
    expect(core.takeOne("AssignTask")).toMatchObject({ workerId: "r1", attempt: 2 });
  });

  it("are given up as poison once two workers died of them alone; what was delivered stays", () => {
    const core = new CoreDriver({ maxTaskAttempts: 3 });
    core.collect(2);
    for (let attempt = 1; attempt <= 5; attempt++) {
      expect(core.take("CollectCompleted")).toEqual([]);
      const incarnation = core.rollout("r1");
      const task = core.takeOne("AssignTask");
      if (attempt === 1) core.deliver("0/0/0", task);
      core.do({ type: "WorkerDisconnected", workerId: "r1", incarnation });
    }
    expect(core.takeOne("CollectCompleted")).toMatchObject({ experienceIds: ["0/0/0"], abandoned: 1 });
    expect(status(core.state).ledger.abandoned).toEqual({ poison: 1 });
    expect(core.takeOne("ExperiencesGivenUp")).toMatchObject({ experienceIds: ["0/1/0"], reason: "poison" });
  });

  it("that keep failing are taken apart, so that only the prompt to blame is given up", () => {
    const core = new CoreDriver({ maxTaskAttempts: 3 });
    core.collect(4);
    let kills = 0;
    for (let i = 0; i < 20 && core.take("CollectCompleted").length === 0; i++) {
      const incarnation = core.rollout("r1");
      for (let task = core.take("AssignTask")[0]; task !== undefined; task = core.take("AssignTask")[0]) {
        if (task.experienceIds.includes("0/2/0")) {
          kills += 1;
          core.do({ type: "WorkerDisconnected", workerId: "r1", incarnation });
          break;
        }
        const { workerId, taskId, attempt } = task;
        for (const id of task.experienceIds) core.deliver(id, task);
        core.do({ type: "TaskFinished", workerId, incarnation, taskId, attempt });
      }
    }
    expect(status(core.state).ledger).toMatchObject({ admitted: 3, abandoned: { poison: 1 } });
    expect(core.state.durable.experiences.get("0/2/0")?.status).toBe("abandoned");
    // Three times together with the others, twice alone.
    expect(kills).toBe(5);
  });

  it("say why they are handed out again", () => {
    const core = new CoreDriver({ leaseTtlMs: 1_000, taskTimeoutMs: 3_000, maxTaskAttempts: 100 });
    core.collect(1);
    const reasonAfter = (lose: (incarnation: number, task: { taskId: string; attempt: number }) => void) => {
      const incarnation = core.rollout("r1");
      const task = core.takeOne("AssignTask");
      lose(incarnation, task);
      const successor = core.rollout("r2");
      core.wait(1_000); // whoever failed it must wait for somebody else
      const { redelivery } = core.takeOne("AssignTask");
      core.do({ type: "WorkerLeft", workerId: "r2", incarnation: successor });
      core.do({ type: "WorkerLeft", workerId: "r1", incarnation });
      return redelivery;
    };
    const who = (incarnation: number) => ({ workerId: "r1", incarnation });
    expect(reasonAfter((incarnation) => core.do({ type: "WorkerDisconnected", ...who(incarnation) }))).toBe(
      "connection",
    );
    expect(reasonAfter((incarnation) => core.do({ type: "WorkerLeft", ...who(incarnation) }))).toBe(
      "drained",
    );
    expect(reasonAfter(() => core.wait(1_001))).toBe("lease");
    expect(reasonAfter(() => void core.register("r1", "rollout", null, 0))).toBe("fenced");
    expect(
      reasonAfter((incarnation, { taskId, attempt }) =>
        core.do({ type: "TaskFailed", ...who(incarnation), taskId, attempt, reason: "x" }),
      ),
    ).toBe("failed");
    expect(
      reasonAfter((incarnation) => {
        for (let i = 0; i < 6; i++) {
          core.wait(500);
          core.do({ type: "WorkerHeartbeat", ...who(incarnation), policyVersion: 0 });
        }
        core.do({ type: "WorkerReady", ...who(incarnation), credits: 0, policyVersion: 0 });
      }),
    ).toBe("timeout");
  });

  it("do not count a voluntary departure, nor a crash of a worker that had not begun them", () => {
    const core = new CoreDriver({ maxTaskAttempts: 1 });
    core.collect(3, 1);
    const left = core.rollout("r1", 3);
    core.take("AssignTask");
    core.do({ type: "WorkerLeft", workerId: "r1", incarnation: left });
    const isolated = () => [...core.state.volatile.tasks.values()].filter((task) => task.isIsolated);
    expect(isolated()).toEqual([]);
    const crashed = core.rollout("r2", 3);
    core.do({ type: "WorkerDisconnected", workerId: "r2", incarnation: crashed });
    expect(isolated().map(({ taskId }) => taskId)).toEqual(["task-0-0"]);
  });

  it("that failed too often go to a worker that holds nothing else, and it gets nothing beside them", () => {
    const core = new CoreDriver({ maxTaskAttempts: 1 });
    core.collect(3, 1);
    const first = core.rollout("r1", 1);
    core.take("AssignTask");
    core.do({ type: "WorkerDisconnected", workerId: "r1", incarnation: first });
    core.wait(10_000); // r1 would have to wait for somebody else
    const second = core.rollout("r2", 2);
    expect(core.take("AssignTask").map(({ taskId }) => taskId)).toEqual(["task-0-0"]);
    core.rollout("r3", 2);
    expect(core.take("AssignTask").map(({ taskId, workerId }) => `${taskId} ${workerId}`)).toEqual([
      "task-0-1 r3",
      "task-0-2 r3",
    ]);
    // Whoever is busy is kept free for it: r3 gets nothing new until it holds nothing.
    core.do({ type: "WorkerLeft", workerId: "r2", incarnation: second });
    expect(core.take("AssignTask")).toEqual([]);
    const [one, two] = ["task-0-1", "task-0-2"].map((taskId) => core.state.volatile.tasks.get(taskId)!);
    core.deliver("0/1/0", { ...one.leases[0], taskId: one.taskId });
    expect(core.take("AssignTask")).toEqual([]);
    core.deliver("0/2/0", { ...two.leases[0], taskId: two.taskId });
    expect(core.takeOne("AssignTask")).toMatchObject({ workerId: "r3", taskId: "task-0-0" });
  });

  it("of a healthy prompt outlive more kills when workers die without it as well", () => {
    const core = new CoreDriver({ maxTaskAttempts: 3 });
    core.collect(1);
    for (let kill = 0; kill < 12; kill++) {
      const other = core.rollout("other", 0);
      const incarnation = core.rollout("r1");
      if (core.take("AssignTask").length === 1)
        core.do({ type: "WorkerDisconnected", workerId: "r1", incarnation });
      core.do({ type: "WorkerDisconnected", workerId: "other", incarnation: other });
      core.wait(10_000);
      if (kill < 8) expect(status(core.state).ledger.abandoned, `${kill}`).toEqual({});
    }
    // In the end nobody else is risked: three times in all, and eight times alone.
    expect(status(core.state).ledger.abandoned).toEqual({ poison: 1 });
  });

  it("are not given up on the word of one worker while others are there", () => {
    const core = new CoreDriver({ maxTaskAttempts: 1, leaseTtlMs: 1_000 });
    core.collect(1);
    const bad = core.rollout("bad");
    core.rollout("busy", 0);
    const beat = () => {
      for (const { workerId, incarnation } of core.state.volatile.members.values())
        core.do({ type: "WorkerHeartbeat", workerId, incarnation });
    };
    let failures = 0;
    for (let i = 0; i < 40; i++) {
      for (const { taskId, attempt } of core.take("AssignTask")) {
        failures += 1;
        core.do({ type: "TaskFailed", workerId: "bad", incarnation: bad, taskId, attempt, reason: "x" });
      }
      if (failures === 5) break;
      core.wait(300);
      beat();
    }
    expect(failures).toBe(5);
    expect(status(core.state).ledger.abandoned).toEqual({});
    const { incarnation } = core.state.volatile.members.get("busy")!;
    core.do({ type: "WorkerReady", workerId: "busy", incarnation, credits: 1, policyVersion: 0 });
    const { taskId, attempt } = core.takeOne("AssignTask");
    core.do({ type: "TaskFailed", workerId: "busy", incarnation, taskId, attempt, reason: "x" });
    expect(status(core.state).ledger.abandoned).toEqual({ poison: 1 });
  });

  it("run out of time only while they are at work, not behind another task of their holder", () => {
    const core = new CoreDriver({ leaseTtlMs: 100_000, taskTimeoutMs: 5_000, hedgeFactor: 0 });
    core.collect(2, 1);
    const incarnation = core.rollout("r1", 2);
    const [first, second] = core.take("AssignTask");
    const beat = (tokens: number): void => {
      const progress = [{ taskId: first.taskId, attempt: 1, tokens }];
      core.do({ type: "WorkerHeartbeat", workerId: "r1", incarnation, policyVersion: 0, progress });
    };
    for (let i = 1; i <= 5; i++) {
      core.wait(4_000);
      beat(i);
    }
    expect(core.take("CancelTask")).toEqual([]);
    core.deliver("0/0/0", first);
    core.take("CancelTask");
    core.wait(4_999);
    expect(core.take("CancelTask")).toEqual([]);
    core.wait(2);
    expect(core.takeOne("CancelTask")).toMatchObject({ taskId: second.taskId });
  });

  it("that a worker never began count against nobody when their time runs out", () => {
    const core = new CoreDriver({
      leaseTtlMs: 1e9,
      taskTimeoutMs: 5_000,
      maxTaskAttempts: 1,
      hedgeFactor: 0,
    });
    core.collect(1);
    core.rollout("r1", 1);
    core.rollout("r2", 1);
    core.wait(60_000);
    expect(core.take("CancelTask").length).toBeGreaterThan(5);
    expect(status(core.state).ledger.abandoned).toEqual({});
  });

  it("stop the run when more than a few, and more than one in a hundred, are given up", () => {
    const core = new CoreDriver();
    core.collect(64, 1);
    core.rollout("r1", 64);
    const tasks = core.take("AssignTask");
    const deliverNaN = (task: (typeof tasks)[number]): void => {
      const { taskId, attempt, workerId, incarnation } = task;
      const [experienceId] = task.experienceIds;
      const experience = { taskId, attempt, experienceId, policyVersion: 0, bytes: 9, isFinite: false };
      core.do({ type: "ExperiencesReceived", workerId, incarnation, experiences: [experience] });
    };
    for (const task of tasks.slice(0, 10)) deliverNaN(task);
    expect(core.take("StopRun")).toEqual([]);
    deliverNaN(tasks[10]);
    const { code, diagnosis } = core.takeOne("StopRun");
    expect(code).toBe("NUMERIC");
    expect(diagnosis).toContain("11 of 64 prompts");
  });

  it("accept a late result while its id is open, refuse it from anybody who never held the task", () => {
    const core = new CoreDriver();
    core.collect(2);
    const r1 = core.rollout("r1");
    const first = core.takeOne("AssignTask");
    const r2 = core.rollout("r2");
    core.do({
      type: "TaskFailed",
      workerId: "r1",
      incarnation: r1,
      taskId: first.taskId,
      attempt: 1,
      reason: "slow",
    });
    const second = core.takeOne("AssignTask");
    expect(second.workerId).toBe("r2");
    expect(core.deliver("0/0/0", { ...first, workerId: "r2", incarnation: r2 })).toBe("fenced");
    expect(core.deliver("0/0/0", first)).toBe("admitted");
    expect(core.deliver("0/0/0", second)).toBe("duplicate");
    expect(core.deliver("0/1/0", first)).toBe("admitted");
    expect(core.takeOne("CancelTask")).toMatchObject({ workerId: "r2" });
  });

  it("take what was made before a restart, whoever was given them since", () => {
    const core = new CoreDriver();
    core.collect(2);
    core.rollout("r1");
    const before = core.takeOne("AssignTask");
    core.restart();
    core.rollout("r2");
    expect(core.takeOne("AssignTask").workerId).toBe("r2");
    const incarnation = core.rollout("r1");
    expect(core.deliver("0/0/0", { ...before, incarnation })).toBe("admitted");
    expect(core.deliver("0/1/0", { ...before, incarnation })).toBe("admitted");
    expect(core.takeOne("CancelTask").workerId).toBe("r2");
  });

  it("wait for a worker whose policy is fresh enough, which is told once what to fetch", () => {
    const core = new CoreDriver();
    core.collect(1);
    const incarnation = core.rollout("r1", 1, -1);
    core.do({ type: "WorkerHeartbeat", workerId: "r1", incarnation, policyVersion: -1 });
    expect(core.take("AssignTask")).toEqual([]);
    expect(core.takeOne("RefreshPolicy")).toMatchObject({ workerId: "r1", policyVersion: 0 });
    core.do({ type: "WorkerHeartbeat", workerId: "r1", incarnation, policyVersion: 0 });
    expect(core.takeOne("AssignTask").policyVersion).toBe(0);
  });

  it("let a draining worker finish what it holds, then release it", () => {
    const core = new CoreDriver();
    core.collect(2, 1);
    const incarnation = core.rollout("r1", 1);
    const task = core.takeOne("AssignTask");
    core.do({ type: "WorkerDraining", workerId: "r1", incarnation });
    expect(core.take("ReleaseWorker")).toEqual([]);
    core.deliver("0/0/0", task);
    expect(core.take("AssignTask")).toEqual([]);
    expect(core.takeOne("ReleaseWorker")).toMatchObject({ workerId: "r1", incarnation });
  });

  it("stop the run with a diagnosis when no worker comes for waitForWorkersMs", () => {
    const core = new CoreDriver({ waitForWorkersMs: 30_000 });
    core.collect(1);
    core.wait(29_999);
    expect(core.take("StopRun")).toEqual([]);
    core.wait(2);
    expect(core.takeOne("StopRun")).toMatchObject({ code: "UNREACHABLE" });
    expect(core.do({ type: "Tick" })).toEqual([]);
  });

  it("of an evaluation complete once each and leave the ledger alone", () => {
    const core = new CoreDriver();
    core.do({ type: "VersionPublished", policyVersion: 0, sha256: "v0" });
    core.do({ type: "EvaluationRequested", evaluationId: "before", policyVersion: 0, tasks: EVALUATION });
    const incarnation = core.rollout("r1", 2);
    const [e1, e2] = core.take("AssignTask");
    expect([e1.kind, e1.taskId, e2.taskId]).toEqual(["evaluation", "e1", "e2"]);
    const receive = (taskId: string, from = "r1"): string => {
      core.do({ type: "EvaluationReceived", workerId: from, incarnation, taskId, attempt: 1 });
      return core.take("AckEvaluation").at(-1)!.outcome;
    };
    expect(receive("e1")).toBe("accepted");
    expect(receive("e1")).toBe("duplicate");
    expect(receive("other")).toBe("unknown");
    expect(receive("e2", "r9")).toBe("fenced");
    expect(core.take("EvaluationCompleted")).toEqual([]);
    expect(receive("e2")).toBe("accepted");
    expect(core.takeOne("EvaluationCompleted")).toMatchObject({ evaluationId: "before", givenUp: [] });
    expect(status(core.state).ledger).toMatchObject({ requested: 0, admitted: 0 });
  });

  it("of an evaluation that keep failing are taken apart too, and the others are answered", () => {
    const core = new CoreDriver({ maxTaskAttempts: 3 });
    core.do({ type: "VersionPublished", policyVersion: 0, sha256: "v0" });
    const tasks = [{ taskId: "e1", experienceIds: ["eval/0/0", "eval/1/0", "eval/2/0"] }];
    core.do({ type: "EvaluationRequested", evaluationId: "before", policyVersion: 0, tasks });
    const answered: string[] = [];
    let kills = 0;
    for (let i = 0; i < 20 && core.effects.every(({ type }) => type !== "EvaluationCompleted"); i++) {
      const incarnation = core.rollout("r1");
      for (let task = core.take("AssignTask")[0]; task !== undefined; task = core.take("AssignTask")[0]) {
        const { workerId, taskId, attempt, experienceIds } = task;
        if (experienceIds.includes("eval/1/0")) {
          kills += 1;
          core.do({ type: "WorkerDisconnected", workerId: "r1", incarnation });
          break;
        }
        answered.push(...experienceIds);
        core.do({ type: "EvaluationReceived", workerId, incarnation, taskId, attempt });
      }
    }
    expect(core.takeOne("EvaluationCompleted")).toMatchObject({ givenUp: ["eval/1/0"] });
    expect(answered.sort()).toEqual(["eval/0/0", "eval/2/0"]);
    expect(kills).toBe(5);
  });
});
