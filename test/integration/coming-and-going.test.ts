/** Workers join and leave while a run goes on, and a run ends when it is told to. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { openLevelLog } from "../../src/coordinator/journal/index.js";
import { ControlClient, type RunStatus } from "../../src/rpc/control-client.js";
import { readCoordinatorFile } from "../../src/shared/coordinator-file.js";
import { PATIENCE_MS, RunFolder, type Run } from "../helpers/tiny-run.js";

/** Time for a process to start, join, work and leave while a fast machine trains: iterations are cheap. */
const LONG = ["--set", "ppo.iterations=20"];
const ALONE = ["--set", "cluster.rollouts=1", "--set", "cluster.learners=1"];

const folder = new RunFolder();
let expected: string;
beforeAll(async () => {
  const run = await folder.start("undisturbed", [...LONG, ...ALONE]);
  expected = (await run.finish()).stateSha256;
}, PATIENCE_MS);
afterAll(() => folder.remove());

const workersOf = ({ workers }: RunStatus, role: string) => workers.filter((worker) => worker.role === role);

async function scale(run: Run, role: "rollout" | "learner", count: number): Promise<void> {
  const client = new ControlClient((await readCoordinatorFile(run.runDir))?.grpcAddress ?? "");
  await client.scale(role, count);
  client.close();
}

/** Committed steps that were begun again, from the journal of a run that is over. */
async function repeatedSteps(run: Run): Promise<number[]> {
  const log = await openLevelLog(join(run.runDir, "journal"));
  const steps: number[] = [];
  for await (const { record } of log.records())
    if (record.type === "GenerationOpened") steps.push(record.step);
  await log.close();
  return steps;
}

describe("a run", { timeout: 2 * PATIENCE_MS }, () => {
  it("takes in workers and lets them go during ppo, without a change in its result", async () => {
    const run = await folder.start("elastic", [...LONG, ...ALONE]);
    await run.until((status) => status.stage === "reward" && status.optimizerStep > 0);
    await scale(run, "rollout", 3);
    await scale(run, "learner", 2);
    await run.until(
      (status) => workersOf(status, "rollout").length === 3 && workersOf(status, "learner").length === 2,
    );
    await scale(run, "rollout", 1);
    await scale(run, "learner", 1);
    const summary = await run.finish();
    expect(summary.stateSha256).toBe(expected);
    const { admitted, trained } = summary.ppo.experiences;
    expect(trained).toBe(admitted);
    expect(run.processes()).toEqual([]);
  });

  it("loses no step when a learner and a rollout worker get SIGTERM", async () => {
    const run = await folder.start("drained", LONG);
    const status = await run.until(({ stage, optimizerStep }) => stage === "ppo" && optimizerStep > 0);
    for (const role of ["learner", "rollout"]) process.kill(workersOf(status, role)[0].pid, "SIGTERM");
    const summary = await run.finish();
    expect(summary.stateSha256).toBe(expected);
    expect(summary.ppo.experiences.dropped).toBe(0);
    expect(run.output).not.toMatch(/SIG(TERM|KILL)/);
  });

  it("computes no committed step again when all learners are replaced one right after another", async () => {
    // No checkpoint to go on from, and time for a process to start on a busy machine.
    const sets = ["checkpoint.everyIterations=0", `cluster.drainTimeoutMs=${PATIENCE_MS}`];
    const run = await folder.start("rolled", [...LONG, ...sets.flatMap((set) => ["--set", set])]);
    const { workers } = await run.until(({ stage, optimizerStep }) => stage === "ppo" && optimizerStep > 0);
    const learners = workers.filter(({ role }) => role === "learner");
    for (const { pid } of learners) {
      process.kill(pid, "SIGTERM");
      // The next one has to go before this one is back.
      if (pid !== learners.at(-1)?.pid)
        await run.until((status) => !workersOf(status, "learner").some((one) => one.pid === pid));
    }
    const summary = await run.finish();
    expect(summary.stateSha256).toBe(expected);
    expect(await repeatedSteps(run)).toEqual([]);
    expect(run.output).not.toMatch(/SIG(TERM|KILL)/);
  });

  it.each(["SIGTERM", "SIGINT"] as const)(
    "ends within 10 s of %s, with every process, and can be continued",
    async (signal) => {
      const run = await folder.start(`stopped-by-${signal}`);
      await run.until(({ stage, optimizerStep }) => stage === "sft" && optimizerStep >= 0);
      const startedMs = performance.now();
      process.kill(run.launcher.pid ?? 0, signal);
      const { code } = await run.exited;
      expect(performance.now() - startedMs).toBeLessThan(10_000);
      expect(code).toBe(signal === "SIGINT" ? 130 : 0);
      expect(run.processes()).toEqual([]);
      expect(existsSync(join(run.runDir, "summary.json"))).toBe(false);
      expect(run.output).toContain("--resume auto");
    },
  );
});
