import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { describe, expect, it } from "vitest";
import { packageRoot } from "../../src/shared/paths.js";
import { devices } from "./devices.js";

const TIMEOUT_MS = 600_000;

describe.each(devices)("$title", ({ settings, missing }) => {
  if (missing !== null) {
    it.skip(`carries a whole run (skipped: ${missing})`, () => {});
    return;
  }

  it(
    "carries sft, reward model and ppo of a tiny run through its processes to the end",
    async () => {
      const folder = await mkdtemp(join(tmpdir(), "troupe-device-"));
      const args = ["bin/troupe.mjs", "quickstart", "--preset", "tiny", "--run-dir", folder];
      const set = settings.flatMap((assignment) => ["--set", assignment]);
      try {
        await promisify(execFile)(process.execPath, [...args, ...set], {
          cwd: packageRoot,
          maxBuffer: 2 ** 24,
          timeout: TIMEOUT_MS - 30_000, // stops the launcher, and with it the fleet, before the test gives up
        });
        const stages = (await readFile(join(folder, "metrics.jsonl"), "utf8"))
          .trim()
          .split("\n")
          .map((line) => (JSON.parse(line) as { stage?: string }).stage);
        expect([...new Set(stages)]).toEqual(expect.arrayContaining(["sft", "reward", "ppo"]));
      } finally {
        await rm(folder, { recursive: true, force: true });
      }
    },
    TIMEOUT_MS,
  );
});
