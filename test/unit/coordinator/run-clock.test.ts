import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { RunClock } from "../../../src/coordinator/run-clock.js";
import { createLogger } from "../../../src/observability/logger.js";

let runDir: string;
let nowMs = 0;
const logger = createLogger({ role: "coordinator", level: "silent" });
const path = () => join(runDir, "results", "seconds.json");
const open = (saveEveryMs = 3_600_000) => RunClock.open({ runDir, logger, now: () => nowMs, saveEveryMs });

beforeEach(() => void (runDir = mkdtempSync(join(tmpdir(), "troupe-clock-"))));
afterEach(() => rmSync(runDir, { recursive: true, force: true }));

describe("the seconds of a run", () => {
  it("are those of every coordinator process, without the time between them", async () => {
    nowMs = 1_000;
    const first = await open();
    nowMs += 40_000;
    await first.close();
    nowMs += 600_000; // nobody directs the run
    const second = await open();
    nowMs += 2_500;
    expect(second.seconds).toBeCloseTo(42.5, 9);
    await second.close();
    nowMs = 0; // another machine, another clock
    const third = await open();
    expect(third.seconds).toBeCloseTo(42.5, 9);
    await third.abandon();
    expect(readdirSync(join(runDir, "results"))).toEqual(["seconds.json"]);
  });

  it("outlive a coordinator that is killed, but for the last few", async () => {
    nowMs = 0;
    const killed = await open(5);
    nowMs = 30_000;
    await vi.waitFor(() => expect(Number(readFileSync(path(), "utf8"))).toBe(30));
    await killed.abandon(); // the timer is gone, as with the process; nothing is said at the end
    nowMs = 31_000;
    expect((await open()).seconds).toBe(30);
  });

  it("are left alone by a coordinator that was replaced", async () => {
    nowMs = 0;
    const replaced = await open();
    nowMs = 9_000;
    await replaced.abandon();
    expect(existsSync(path())).toBe(false);
  });

  it("are refused when the file holds something else", async () => {
    await (await open()).close();
    for (const text of ["", "-3", "soon"]) {
      writeFileSync(path(), text);
      await expect(open()).rejects.toMatchObject({
        code: "DATA",
        message: expect.stringContaining(path()) as string,
      });
    }
  });

  it("do not end a run when they cannot be written", async () => {
    const clock = await open();
    rmSync(join(runDir, "results"), { recursive: true });
    await expect(clock.close()).resolves.toBeUndefined();
  });
});
