/** Collecting while training: what is killed in the middle of the overlap costs time, and no experience. */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import type { RunStatus } from "../../src/rpc/control-client.js";
import { PATIENCE_MS, RunFolder } from "../helpers/tiny-run.js";

const folder = new RunFolder();
afterAll(() => folder.remove());

/** More than a test waits for, so that a fast machine does not end a run before it is disturbed. */
const ITERATIONS = 8;
const EXPERIENCES = 16;

/** The learners are at iteration `first`, or a later one, while experience of the next one is asked for. */
const overlaps = (first: number) => (status: RunStatus) =>
  status.stage === "ppo" && status.iteration >= first && status.collectingIteration > status.iteration;

describe("an asynchronous run", { timeout: 2 * PATIENCE_MS }, () => {
  it("loses no experience to a killed rollout worker and a killed coordinator, and trains on none older than the bound", async () => {
    const set = [`ppo.iterations=${ITERATIONS}`, "ppo.staleness=1"].flatMap((value) => ["--set", value]);
    const run = await folder.start("asynchronous", set);
    const before = await run.until(overlaps(1));
    process.kill(before.workers.find(({ role }) => role === "rollout")!.pid, "SIGKILL");
    await run.until(overlaps(2));
    process.kill(await run.coordinatorPid(), "SIGKILL");
    const { ppo } = await run.finish();

    const { admitted, trained, dropped, buffered, inFlight, trainedByStaleness } = ppo.experiences;
    expect({ admitted, trained, dropped, buffered, inFlight }, run.output).toEqual({
      admitted: ITERATIONS * EXPERIENCES,
      trained: ITERATIONS * EXPERIENCES,
      dropped: 0,
      buffered: 0,
      inFlight: 0,
    });
    expect(Object.keys(trainedByStaleness).sort()).toEqual(["0", "1"]);
    expect(trainedByStaleness["0"] + trainedByStaleness["1"]).toBe(trained);
    expect(run.output).toMatch(/rollout-\d.*SIGKILL/);
    expect(run.output).toMatch(/coordinator-0.*SIGKILL/);
    expect(run.processes()).toEqual([]);
    expect(readdirSync(join(run.runDir, "results"))).not.toContain("proximal");
  });

  it("is not continued with a lower bound than it has collected for, loses nothing by the attempt, and goes on with its own", async () => {
    const settings = (staleness: number) =>
      [`ppo.iterations=${ITERATIONS}`, `ppo.staleness=${staleness}`].flatMap((value) => ["--set", value]);
    const first = await folder.start("lowered", settings(2));
    await first.until((status) => overlaps(1)(status) && Number(status.ledger?.buffered) > 0);
    await first.killAll();
    const resume = ["--resume", "auto", "--allow-drift"];
    const lower = await folder.start("lowered", [...settings(0), ...resume]);
    expect(await lower.exited).toMatchObject({ code: 2 });
    expect(lower.output).toMatch(
      /ppo\.staleness 0: the run has collected ahead for a bound of [12]; go on with/,
    );
    // What the launcher lets change, it lets the coordinator change.
    const drifted = [...settings(2), "--set", "data.onBadRow=skip", ...resume];
    const { ppo } = await (await folder.start("lowered", drifted)).finish();
    expect(ppo.experiences).toMatchObject({
      admitted: ITERATIONS * EXPERIENCES,
      trained: ITERATIONS * EXPERIENCES,
      dropped: 0,
      buffered: 0,
    });
  });
});
