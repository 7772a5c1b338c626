import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PassThrough } from "node:stream";
import { expect, it } from "vitest";
import { launchWorkers, workerNames } from "../../../src/launcher/launch-workers.js";
import { sleep } from "../../../src/shared/abort.js";

/** Longer than what the end of a run allows: a learner that stays for others to copy its state does so. */
const LEAVES_AFTER_MS = 9_000;

it("two launchers on one machine never give their workers the same name, nor one launcher two names", () => {
  const [one, another] = [workerNames(), workerNames()];
  expect(one("rollout-0")).toMatch(/^rollout-0-/);
  expect(one("rollout-0")).toBe(one("rollout-0"));
  expect(one("rollout-0")).not.toBe(one("rollout-1"));
  expect(another("rollout-0")).not.toBe(one("rollout-0"));
  expect(workerNames("h".repeat(63))("rollout-1000").length).toBeLessThanOrEqual(63); // what a coordinator takes
});

it("a worker of a run that goes on elsewhere may take its time to leave", async () => {
  const folder = mkdtempSync(join(tmpdir(), "troupe-launch-"));
  const [here, left] = ["here", "left"].map((name) => join(folder, name));
  const worker = `
    const { writeFileSync } = require("node:fs");
    process.on("SIGTERM", () => setTimeout(() => {
      writeFileSync(${JSON.stringify(left)}, "");
      process.exit(0);
    }, ${LEAVES_AFTER_MS}));
    setInterval(() => {}, 1000);
    writeFileSync(${JSON.stringify(here)}, "");`;
  const stop = new AbortController();
  const launched = launchWorkers({
    ...{ coordinator: "127.0.0.1:1", tokenFile: null, insecure: false, gpus: [], logDir: folder },
    counts: { rollout: 0, learner: 1 },
    stream: Object.assign(new PassThrough(), { isTTY: false }),
    signal: stop.signal,
    commandFor: () => ({
      name: "learner-0",
      file: process.execPath,
      args: ["-e", worker],
      env: { PATH: process.env.PATH },
      logPath: join(folder, "learner-0.log"),
    }),
  });
  launched.catch(() => undefined);
  try {
    while (!existsSync(here)) await sleep(20);
    stop.abort();
    await expect(launched).rejects.toMatchObject({ code: "CANCELLED" });
    expect(existsSync(left)).toBe(true);
  } finally {
    stop.abort();
    rmSync(folder, { recursive: true, force: true });
  }
}, 60_000);
