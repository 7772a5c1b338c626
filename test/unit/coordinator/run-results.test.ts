import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { FILES_ON_DISK } from "../../../src/coordinator/journal/durable-files.js";
import { RunResults } from "../../../src/coordinator/run-results.js";

let runDir: string;
let results: RunResults;

beforeEach(() => {
  runDir = mkdtempSync(join(tmpdir(), "troupe-results-"));
  results = new RunResults(runDir, FILES_ON_DISK);
});
afterEach(() => rmSync(runDir, { recursive: true, force: true }));

it("computes a value once for the run directory, also for later processes, and never stores a failure", async () => {
  let calls = 0;
  const compute = () => Promise.resolve({ scores: [0.1 + 0.2, 1e-300, ++calls] });
  await expect(results.remember("ppo.before", () => Promise.reject(new Error("stopped")))).rejects.toThrow(
    "stopped",
  );
  const first = await results.remember("ppo.before", compute);
  expect(await results.remember("ppo.before", compute)).toEqual(first);
  const later = new RunResults(runDir, FILES_ON_DISK);
  expect(await later.recall("ppo.before")).toEqual({ scores: [0.1 + 0.2, 1e-300, 1] });
  expect(await later.recall("ppo.after")).toBeUndefined();
});

it("forgets one result, or a folder of them", async () => {
  for (const name of ["proximal/0", "proximal/1", "sft.before"])
    await results.remember(name, () => Promise.resolve(name));
  expect((await results.namesIn("proximal")).sort()).toEqual(["0", "1"]);
  await results.forget("proximal/0");
  expect(await results.namesIn("proximal")).toEqual(["1"]);
  await results.forgetFolder("proximal");
  expect(await results.namesIn("proximal")).toEqual([]);
  expect(existsSync(join(runDir, "results", "proximal"))).toBe(false);
  expect(await results.recall("sft.before")).toBe("sft.before");
});

it("says what to do about a result that cannot be read", async () => {
  await results.remember("sft.before", () => Promise.resolve(1));
  const path = join(runDir, "results", "sft.before.json");
  writeFileSync(path, '{"half');
  await expect(results.recall("sft.before")).rejects.toThrow(`${path}: cannot be read; remove it`);
});
