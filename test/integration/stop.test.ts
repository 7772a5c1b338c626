/** `troupe stop`: every process of a run ends, the launcher says so, and the run goes on later with the same bits. */
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { afterAll, expect, it } from "vitest";
import { packageRoot } from "../../src/shared/paths.js";
import { PATIENCE_MS, RunFolder } from "../helpers/tiny-run.js";

/** Time for a command to start while a fast machine trains. */
const LONG = ["--set", "ppo.iterations=20"];

const runs = new RunFolder();
afterAll(() => runs.remove());

it(
  "ends the launcher with 130 instead of a coordinator that it starts again",
  { timeout: 3 * PATIENCE_MS },
  async () => {
    const faultFree = await (await runs.start("fault-free", LONG)).finish();
    const run = await runs.start("stopped", LONG);
    await run.until(({ stage, optimizerStep }) => stage === "ppo" && optimizerStep > 0);
    const stop = spawnSync(
      process.execPath,
      [join(packageRoot, "bin", "troupe.mjs"), "stop", "--run-dir", run.runDir, "--reason", "enough"],
      { encoding: "utf8", env: { ...process.env, TROUPE_SKIP_BUILD: "1" } },
    );
    expect(stop.stdout + stop.stderr).toContain("--resume auto");
    expect(stop.status).toBe(0);
    expect((await run.exited).code, run.output).toBe(130);
    expect(run.output).toMatch(/the run was stopped.*--resume auto/);
    const { stateSha256 } = await (await runs.start("stopped", [...LONG, "--resume", "auto"])).finish();
    expect(stateSha256).toBe(faultFree.stateSha256);
  },
);
