import { afterAll, describe, expect, it } from "vitest";
import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { loadModelDir } from "../../src/models/checkpoint-dir.js";
import { PATIENCE_MS, RunFolder, type Run, type TinySummary } from "../helpers/tiny-run.js";

const folder = new RunFolder();
afterAll(() => folder.remove());

const finish = async (name: string, ...sets: string[]): Promise<{ run: Run; summary: TinySummary }> => {
  const run = await folder.start(
    name,
    sets.flatMap((set) => ["--set", set]),
  );
  return { run, summary: await run.finish() };
};

describe("a run of three stages on 2 rollout workers and 2 learners", { timeout: PATIENCE_MS }, () => {
  it("ends with results, a balanced ledger, a usable model and no process left", async () => {
    const { run, summary } = await finish("whole");
    const { sft, reward, ppo, processes } = summary;
    expect(sft.evalLossAfter).toBeLessThan(sft.evalLossBefore);
    expect(reward.heldOutAccuracy).toBeGreaterThanOrEqual(0);
    expect(reward.heldOutAccuracy).toBeLessThanOrEqual(1);
    expect(ppo.iterations).toBe(4);
    expect(ppo.stoppedByKlBudget).toBe(false);
    expect(Number.isFinite(ppo.klToRef)).toBe(true);
    const { admitted, trained, dropped, buffered } = ppo.experiences;
    expect({ admitted, trained, dropped, buffered }).toEqual({
      admitted: 64,
      trained: 64,
      dropped: 0,
      buffered: 0,
    });
    expect(processes).toEqual({ rollout: 2, learner: 2 });
    expect(summary.stateSha256).toMatch(/^[0-9a-f]{64}$/);
    for (const file of ["config.json", "model.safetensors", "tokenizer.json"])
      expect((await stat(join(summary.model, file))).size).toBeGreaterThan(0);
    const latest = await readFile(join(run.runDir, "checkpoints", "latest"), "utf8");
    expect(latest).toBe("ppo-000008");
    expect(run.processes()).toEqual([]);
  });

  it("saves the moving average of the policy as a model of its own", async () => {
    const { run } = await finish(
      "average",
      "ppo.ema.decay=0.75",
      "ppo.iterations=1",
      "ppo.ppoEpochs=1",
      "ppo.minibatchSize=16", // the whole collection: one optimizer step
    );
    const [start, end, average] = await Promise.all(
      ["sft", "ppo", "ppo-ema"].map((name) => loadModelDir(join(run.runDir, "models", name), "lm")),
    );
    expect(end.values).not.toEqual(start.values);
    const expected = start.values.map((before, i) => 0.75 * before + 0.25 * end.values[i]);
    const farthest = expected.reduce((most, x, i) => Math.max(most, Math.abs(x - average.values[i])), 0);
    expect(farthest).toBeLessThan(1e-7);
    expect(average.spec).toEqual(end.spec);
    expect((await stat(join(run.runDir, "models", "ppo-ema", "tokenizer.json"))).size).toBeGreaterThan(0);
  });
});
