import { afterAll, describe, expect, it } from "vitest";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { PATIENCE_MS, RunFolder } from "../helpers/tiny-run.js";

const folder = new RunFolder();
afterAll(() => folder.remove());

const jsonLines = async (path: string): Promise<Record<string, unknown>[]> =>
  (await readFile(path, "utf8"))
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as Record<string, unknown>);

describe("a run with stop strings", { timeout: PATIENCE_MS }, () => {
  it("ends answers on the rollout workers, counts them, and trains on them as they are", async () => {
    const sets = ["generation.stopStrings=['.', 'thanks f']", "ppo.iterations=2", "ppo.missingEosPenalty=1"];
    const run = await folder.start(
      "stops",
      sets.flatMap((set) => ["--set", set]),
    );
    const { ppo } = await run.finish();
    expect(ppo.experiences.trained).toBe(32);
    const ratios = (await jsonLines(join(run.runDir, "metrics.jsonl")))
      .map((line) => (line.metrics as Record<string, number> | undefined)?.["val/stop_ratio"])
      .filter((ratio) => ratio !== undefined);
    expect(ratios.length).toBe(2);
    for (const ratio of ratios) expect(ratio).toBeGreaterThan(0);
    const samples = await jsonLines(join(run.runDir, "eval-samples.jsonl"));
    const answers = samples.flatMap(({ before, after }) => [before as string, after as string]);
    const stopped = answers.filter((answer) => answer.includes("."));
    expect(stopped.length).toBeGreaterThan(0);
    for (const answer of stopped) expect(answer.indexOf(".")).toBe(answer.length - 1);
  });
});
