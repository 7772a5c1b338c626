import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { parseConfig } from "../../../src/config/load.js";
import { addressOf, portOf } from "../../../src/launcher/find-coordinator.js";
import { readCoordinatorFile } from "../../../src/shared/coordinator-file.js";
import { defaultRunDirectory, openRunDirectory } from "../../../src/launcher/run-directory.js";

const config = (...sets: string[]) => parseConfig({ text: "data: {path: /rows.jsonl}", sets }).config;
const fresh = () => join(mkdtempSync(join(tmpdir(), "troupe-run-")), "run");

describe("a run directory", () => {
  it("lets one launcher in at a time, and the next one after it", async () => {
    const path = fresh();
    const first = await openRunDirectory(path, { config: config() });
    await expect(openRunDirectory(path, { config: config(), resume: "auto" })).rejects.toMatchObject({
      code: "RUN_DIR_IN_USE",
      message: expect.stringContaining(`pid ${process.pid}`) as string,
    });
    await first.release();
    await first.release();
    const second = await openRunDirectory(path, { config: config(), resume: "auto" });
    expect([first.isResumed, second.isResumed]).toEqual([false, true]);
    await second.release();
  });

  it("is free again when the launcher that held it was killed, even if its pid lives on as another process", async () => {
    const path = fresh();
    mkdirSync(path);
    const gone = spawn(process.execPath, ["-e", ""]);
    await new Promise((resolve) => gone.once("exit", resolve));
    for (const holder of [{ pid: gone.pid, started: null }, { pid: process.pid, started: "1" }, "not json"]) {
      writeFileSync(
        join(path, "launcher.lock"),
        typeof holder === "string" ? holder : JSON.stringify(holder),
      );
      await (await openRunDirectory(path, { config: config(), resume: "auto" })).release();
    }
  });

  it("refuses a run that is there already unless it is to be continued", async () => {
    const path = fresh();
    await (await openRunDirectory(path, { config: config() })).release();
    await expect(openRunDirectory(path, { config: config() })).rejects.toThrow(
      /holds a run already; continue it with --resume auto/,
    );
  });

  it("is fresh with --resume auto when nothing ran in it, other files notwithstanding", async () => {
    const path = fresh();
    mkdirSync(path);
    writeFileSync(join(path, "notes.txt"), "mine");
    const directory = await openRunDirectory(path, { config: config(), resume: "auto" });
    expect(directory.isResumed).toBe(false);
    await directory.release();
  });

  it("keeps the whole config, which loads as the same config", async () => {
    const directory = await openRunDirectory(fresh(), { config: config("ppo.lam=0.5", "seed=9") });
    expect(parseConfig({ text: readFileSync(directory.configPath, "utf8") }).config).toEqual(
      config("ppo.lam=0.5", "seed=9"),
    );
    await directory.release();
  });

  it("is not continued with settings that change results, unless told to", async () => {
    const path = fresh();
    await (await openRunDirectory(path, { config: config() })).release();
    const changed = { config: config("ppo.lam=0.5", "seed=9"), resume: "auto" as const };
    await expect(openRunDirectory(path, changed)).rejects.toThrow(
      /seed: was 1, is now 9\n {2}ppo\.lam: was 0\.95, is now 0\.5/,
    );
    await (await openRunDirectory(path, { ...changed, allowDrift: true })).release();
    await (await openRunDirectory(path, changed)).release(); // the new values are the run's now
  });

  it("is continued with another number of processes or other stages", async () => {
    const path = fresh();
    await (await openRunDirectory(path, { config: config() })).release();
    const other = config("cluster.rollouts=7", "checkpoint.keepLast=5", "stages=[ppo]");
    await (await openRunDirectory(path, { config: other, resume: "auto" })).release();
  });

  it("waits for a coordinator left behind, and refuses when it does not end", async () => {
    const path = fresh();
    mkdirSync(path);
    const leftover = spawn(process.execPath, ["-e", "setTimeout(() => {}, 60000)", "coordinator"]);
    try {
      writeFileSync(join(path, "coordinator.json"), JSON.stringify({ pid: leftover.pid }));
      const options = { config: config(), resume: "auto" as const, leftoverMs: 100 };
      await expect(openRunDirectory(path, options)).rejects.toMatchObject({ code: "RUN_DIR_IN_USE" });
      const opening = openRunDirectory(path, { ...options, leftoverMs: 20_000 });
      setTimeout(() => leftover.kill("SIGKILL"), 100);
      await (await opening).release();
    } finally {
      leftover.kill("SIGKILL");
    }
  });

  it("says so when it cannot be made", async () => {
    const file = join(mkdtempSync(join(tmpdir(), "troupe-run-")), "file");
    writeFileSync(file, "");
    await expect(openRunDirectory(join(file, "run"), { config: config() })).rejects.toMatchObject({
      code: "STORAGE",
    });
  });

  it("is named after the run and the time", () => {
    expect(defaultRunDirectory("tiny", new Date(2026, 0, 5, 3, 4, 9))).toBe(
      join("runs", "tiny-20260105-030409"),
    );
  });
});

describe("coordinator.json", () => {
  it("is read when complete, and not when torn", async () => {
    const path = mkdtempSync(join(tmpdir(), "troupe-run-"));
    const facts = {
      pid: 7,
      grpcAddress: "127.0.0.1:5000",
      httpAddress: "http://127.0.0.1:5001",
      runId: "r",
      startedAt: "now",
    };
    writeFileSync(join(path, "coordinator.json"), JSON.stringify(facts).slice(0, 40));
    expect(await readCoordinatorFile(path)).toBeUndefined();
    await expect(addressOf(undefined, path)).rejects.toThrow(/no coordinator has listened/);
    writeFileSync(join(path, "coordinator.json"), JSON.stringify(facts));
    expect(await addressOf(undefined, path)).toBe("127.0.0.1:5000");
    expect(await addressOf("other:1", path)).toBe("other:1");
    for (const everywhere of ["0.0.0.0:5000", "[::]:5000", ":::5000"]) {
      writeFileSync(join(path, "coordinator.json"), JSON.stringify({ ...facts, grpcAddress: everywhere }));
      expect(await addressOf(undefined, path)).toBe("127.0.0.1:5000");
    }
    await expect(addressOf(undefined, undefined)).rejects.toThrow(/--coordinator HOST:PORT or --run-dir DIR/);
  });

  it("gives ports of addresses and links", () => {
    expect([portOf("[::1]:50"), portOf("http://127.0.0.1:5001"), portOf("http://h:8/"), portOf("h")]).toEqual(
      [50, 5001, 8, 0],
    );
  });
});
