/** Learners that train alone and average their parameters: equal runs, and learners that die or stand still in a round. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import type { RunStatus } from "../../src/rpc/control-client.js";
import { sleep } from "../../src/shared/abort.js";
import { PATIENCE_MS, RunFolder, type Run } from "../helpers/tiny-run.js";

const folder = new RunFolder();
afterAll(() => folder.remove());

const EXPERIENCES = 16;
const STANDSTILL_MS = 2_500;
const averaging = (sets: Readonly<Record<string, unknown>>): string[] =>
  Object.entries({
    "cluster.sync": "parameters",
    "cluster.syncEvery": 2,
    "cluster.rollouts": 1,
    ...sets,
  }).flatMap(([key, value]) => ["--set", `${key}=${String(value)}`]);

const learnerPids = (status: RunStatus): number[] =>
  status.workers.filter(({ role }) => role === "learner").map(({ pid }) => pid);
const coordinatorLog = (run: Run): string =>
  readFileSync(join(run.runDir, "logs", "coordinator.ndjson"), "utf8");

const isTraining = ({ stage, iteration, ledger }: RunStatus): boolean =>
  stage === "ppo" && iteration >= 1 && Number(ledger?.buffered) === EXPERIENCES;

async function expectWholeLedger(run: Run, iterations = 4) {
  const summary = await run.finish();
  const { admitted, trained, dropped, droppedByReason, buffered } = summary.ppo.experiences;
  expect({ admitted, ended: trained + dropped, buffered }, run.output).toEqual({
    admitted: iterations * EXPERIENCES,
    ended: iterations * EXPERIENCES,
    buffered: 0,
  });
  expect(dropped).toBe(droppedByReason.leftOut ?? 0);
  // Every vote names the parameters a learner stands at: had two ever differed, the round would have been given up.
  expect(coordinatorLog(run)).not.toContain("hashMismatch");
  expect(run.processes()).toEqual([]);
  return summary;
}

describe("runs that average parameters", { timeout: 2 * PATIENCE_MS }, () => {
  it("give equal bits when they are equal and wait for every learner", async () => {
    // Both learners from the first round on: who takes part decides the result.
    const args = averaging({ "cluster.minLearners": 2, "cluster.roundPatience": null });
    const first = await expectWholeLedger(await folder.start("equal-1", args));
    const second = await expectWholeLedger(await folder.start("equal-2", args));
    expect(second.stateSha256).toBe(first.stateSha256);
    expect(first.ppo.experiences.dropped).toBe(0);
    expect(first.sft.evalLossAfter).toBeLessThan(first.sft.evalLossBefore);
  });

  it("count what a learner was too slow for as left out, and all else as trained", async () => {
    const slow = {
      "cluster.minLearners": 2,
      "cluster.syncEvery": 4,
      "ppo.minibatchSize": 4,
      "ppo.ppoEpochs": 1,
      "ppo.iterations": 16,
    };
    const run = await folder.start("slow", averaging(slow));
    // A round takes some ten milliseconds, and a stop that comes after it leaves nothing out: stopped until one counts.
    const wasLeftOut = (status: RunStatus) => Number(status.ledger?.droppedByReason.leftOut ?? 0) > 0;
    let status = await run.until(isTraining);
    while (!wasLeftOut(status)) {
      const [stopped] = learnerPids(status);
      process.kill(stopped, "SIGSTOP");
      await sleep(2 * STANDSTILL_MS);
      process.kill(stopped, "SIGCONT");
      const { iteration } = status;
      status = await run.until((now) => wasLeftOut(now) || (isTraining(now) && now.iteration > iteration));
    }
    const { ppo } = await expectWholeLedger(run, 16);
    expect(ppo.experiences.dropped, run.output).toBeGreaterThan(0);
  });

  it("end with every experience trained or left out though a learner is killed and another stands still", async () => {
    const run = await folder.start(
      "killed-and-stopped",
      averaging({ "cluster.learners": 3, "ppo.iterations": 16 }),
    );
    const status = await run.until(
      ({ stage, iteration, workers }) =>
        stage === "ppo" && iteration >= 1 && workers.filter(({ role }) => role === "learner").length === 3,
    );
    const [killed, stopped] = learnerPids(status);
    process.kill(stopped, "SIGSTOP");
    process.kill(killed, "SIGKILL");
    await sleep(STANDSTILL_MS);
    process.kill(stopped, "SIGCONT");
    await expectWholeLedger(run, 16);
    expect(run.output).toMatch(/learner-\d.*SIGKILL/);
  });
});
