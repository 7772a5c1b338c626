/** Killed processes change nothing but the time a run takes: the same parameters and optimizer state to the last bit. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { RunStatus } from "../../src/rpc/control-client.js";
import { PATIENCE_MS, RunFolder, type Run, type TinySummary } from "../helpers/tiny-run.js";

/** Experiences of one iteration of the tiny run, and optimizer steps made of them. */
const EXPERIENCES = 16;
const STEPS = 4;
/** More than a test waits for, so that a fast machine does not end a run before it is disturbed. */
const ITERATIONS = 8;
const LONG = ["--set", `ppo.iterations=${ITERATIONS}`];

const folder = new RunFolder();
let faultFree: TinySummary;
beforeAll(async () => {
  const alone = ["--set", "cluster.rollouts=1", "--set", "cluster.learners=1"];
  const run = await folder.start("fault-free", [...LONG, ...alone]);
  faultFree = await run.finish();
}, PATIENCE_MS);
afterAll(() => folder.remove());

/** Not all of an iteration's experience is there yet; this one's or, had it gone by unseen, a later one's. */
const isCollecting = (first: number) => (status: RunStatus) =>
  status.stage === "ppo" &&
  status.iteration >= first &&
  status.optimizerStep === status.iteration * STEPS &&
  Number(status.ledger?.buffered) < EXPERIENCES;

const isUpdating = (first: number) => (status: RunStatus) =>
  status.stage === "ppo" &&
  status.iteration >= first &&
  status.optimizerStep > status.iteration * STEPS &&
  status.optimizerStep < (status.iteration + 1) * STEPS;

const pidOf = (status: RunStatus, role: "rollout" | "learner", index = 0): number =>
  status.workers.filter((worker) => worker.role === role)[index].pid;

/** Same state as without faults, every experience accounted for, nothing left running. */
async function expectSameOutcome(run: Run): Promise<TinySummary> {
  const summary = await run.finish();
  expect(summary.stateSha256, run.output).toBe(faultFree.stateSha256);
  const { admitted, trained, dropped, buffered } = summary.ppo.experiences;
  expect({ admitted, trained, dropped, buffered }).toEqual({
    admitted: ITERATIONS * EXPERIENCES,
    trained: ITERATIONS * EXPERIENCES,
    dropped: 0,
    buffered: 0,
  });
  expect(run.processes()).toEqual([]);
  return summary;
}

describe("a run whose processes are killed", { timeout: 2 * PATIENCE_MS }, () => {
  it("ends the same after a rollout worker is killed while collecting and a learner in the middle of an update", async () => {
    const run = await folder.start("workers-killed", LONG);
    process.kill(pidOf(await run.until(isCollecting(1)), "rollout"), "SIGKILL");
    process.kill(pidOf(await run.until(isUpdating(1)), "learner"), "SIGKILL");
    const summary = await expectSameOutcome(run);
    expect(summary.ppo.experiences.admitted).toBe(ITERATIONS * EXPERIENCES);
    expect(run.output).toMatch(/rollout-\d.*SIGKILL/);
    expect(run.output).toMatch(/learner-\d.*SIGKILL/);
  });

  it("ends the same after its only learner is killed: the steps since the checkpoint are repeated", async () => {
    const run = await folder.start("only-learner-killed", [...LONG, "--set", "cluster.learners=1"]);
    process.kill(pidOf(await run.until(isUpdating(3)), "learner"), "SIGKILL");
    await expectSameOutcome(run);
  });

  it("ends the same after the coordinator is killed while collecting and again in the middle of an update", async () => {
    const run = await folder.start("coordinator-killed", LONG);
    await run.until(isCollecting(1));
    process.kill(await run.coordinatorPid(), "SIGKILL");
    await run.until(isUpdating(2));
    process.kill(await run.coordinatorPid(), "SIGKILL");
    await expectSameOutcome(run);
    expect(run.output.match(/coordinator-0.*SIGKILL/g)?.length).toBeGreaterThanOrEqual(2);
  });

  it("ends the same when everything is killed at once and continued with --resume auto", async () => {
    const cut = await folder.start("power-cut", LONG);
    await cut.until(isUpdating(3));
    await cut.killAll();
    await expectSameOutcome(await folder.start("power-cut", [...LONG, "--resume", "auto"]));
  });
});
