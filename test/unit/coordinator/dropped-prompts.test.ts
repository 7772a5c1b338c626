import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, it } from "vitest";
import { DroppedPrompts } from "../../../src/coordinator/dropped-prompts.js";

it("has a line for every prompt that was given up, over restarts", async () => {
  const folder = await mkdtemp(join(tmpdir(), "troupe-dropped-"));
  const prompt = { promptIndex: 7, sampleIndex: 1, experienceId: "3/7/1", promptIds: Int32Array.of(5, 6) };
  const first = await DroppedPrompts.open(folder);
  first.note(prompt, "poison", "rollout-0: out of memory");
  await first.close();
  const second = await DroppedPrompts.open(folder);
  second.note({ experienceId: "4/0/0" }, "nonfinite");
  await second.close();
  const lines = (await readFile(join(folder, "dropped.jsonl"), "utf8")).trimEnd().split("\n");
  const [one, two] = lines.map((line) => JSON.parse(line) as { time: string });
  expect(one).toEqual({
    time: one.time,
    experienceId: "3/7/1",
    reason: "poison",
    failure: "rollout-0: out of memory",
    promptIds: [5, 6],
  });
  expect(two).toEqual({ time: two.time, experienceId: "4/0/0", reason: "nonfinite" });
  expect(Number.isNaN(Date.parse(one.time))).toBe(false);
  await rm(folder, { recursive: true });
});
