import { expect, it } from "vitest";
import { configSchema } from "../../../src/config/schema.js";
import { makeRunStatus } from "../../../src/coordinator/run-status.js";
import { BRIEF, openStage, promptsOf, settle } from "./rollout-stage.js";

async function statusOf() {
  const stage = await openStage();
  const config = configSchema.parse({ data: { path: "rows.jsonl" } });
  const status = makeRunStatus({
    ...stage,
    config,
    runId: "run-1",
    clock: { seconds: 90 },
    intakeBytes: () => 77,
  });
  const introduce = (workerId: string, incarnation: number) =>
    stage.directory.join({
      workerId,
      incarnation,
      role: "rollout",
      host: "h",
      pid: 1,
      metricsAddress: "h:1",
    });
  return { ...stage, status, introduce };
}

it("tells stage, ledger, tasks and workers as the core knows them", async () => {
  const stage = await statusOf();
  await stage.join("rollout-0");
  const { incarnation } = stage.host.state.volatile.members.get("rollout-0")!;
  stage.introduce("rollout-0", incarnation);
  const stop = new AbortController();
  const collected = stage.dispatcher
    .collect(0, promptsOf(0, 8), 0, BRIEF, stop.signal)
    .catch(() => undefined);
  await settle();
  const now = await stage.status();
  expect(now).toMatchObject({
    runId: "run-1",
    stage: "ppo",
    policyVersion: 0,
    coordinatorEpoch: 1,
    workers: [{ workerId: "rollout-0", role: "rollout", state: "alive" }],
    limits: { requiredWorkers: { rollout: 1, learner: 1 } },
  });
  const text = await stage.metrics.registry.metrics();
  expect(text).toMatch(/troupe_rollout_tasks\{state="leased"\} 2\n/);
  expect(text).toMatch(/troupe_rollout_tasks\{state="pending"\} 2\n/);
  expect(text).toMatch(/troupe_intake_bytes 77\n/);
  stop.abort(new Error("enough"));
  await collected;
  await stage.close();
});

it("is told when all it says is on disk, as it was when asked", async () => {
  const stage = await statusOf();
  stage.log.hold();
  stage.host.dispatch({ type: "VersionPublished", policyVersion: 1, sha256: "" });
  let isTold = false;
  const answer = stage.status().finally(() => (isTold = true));
  await settle();
  expect(isTold).toBe(false);
  stage.log.release();
  expect(await answer).toMatchObject({ policyVersion: 1 });
  await stage.close();
});

it("calls a worker lost that only the directory knows, and draining one that leaves", async () => {
  const stage = await statusOf();
  stage.introduce("rollout-9", 1);
  const stream = await stage.join("rollout-0");
  stage.introduce("rollout-0", stage.host.state.volatile.members.get("rollout-0")!.incarnation);
  const stop = new AbortController();
  const collected = stage.dispatcher
    .collect(0, promptsOf(0, 2), 0, BRIEF, stop.signal)
    .catch(() => undefined);
  await settle();
  stream.say({ draining: {} });
  await settle();
  expect((await stage.status()).workers.map(({ workerId, state }) => [workerId, state])).toEqual([
    ["rollout-0", "draining"],
    ["rollout-9", "lost"],
  ]);
  stop.abort(new Error("enough"));
  await collected;
  await stage.close();
});

it("follows the progress that stages publish", async () => {
  const stage = await statusOf();
  stage.bus.publish({
    type: "stage-started",
    stage: "ppo",
    unit: "iteration",
    totalUnits: 9,
    completedUnits: 2,
  });
  expect(await stage.status()).toMatchObject({ unit: "iteration", completedUnits: 2, totalUnits: 9 });
  await stage.close();
});
