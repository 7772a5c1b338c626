import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { layoutOf, toHfConfig } from "../../../src/models/model-spec.js";
import type * as thread from "../../../src/rollout/rollout-thread.js";
import { RolloutCompute, type RolloutSettings } from "../../../src/rollout/rollout-compute.js";
import { writeSafetensors } from "../../../src/shared/safetensors.js";
import { ComputePool } from "../../../src/worker/compute-pool.js";
import { SAMPLING, tinyParams, tinyPrompts, tinySpec } from "./tiny-models.js";

const folder = mkdtempSync(join(tmpdir(), "troupe-thread-"));
const spec = tinySpec();
const settings: RolloutSettings = {
  engine: { name: "onnx", threads: 1 },
  models: [{ role: "actor", head: "lm", hfConfigJson: JSON.stringify(toHfConfig(spec)) }],
  eosIds: [1],
  slots: 4,
  maxSequenceTokens: 48,
};
const path = join(folder, "actor.safetensors");
const task = {
  prompts: tinyPrompts(5).map(({ key, promptIds }, promptIndex) => ({
    promptIndex,
    sampleIndex: 0,
    experienceId: key,
    promptIds,
  })),
  policyVersion: 1,
  sampling: SAMPLING,
  needs: { score: false },
};

beforeAll(() => writeSafetensors(path, layoutOf(spec).entries, tinyParams(spec, 1)));
afterAll(() => rmSync(folder, { recursive: true }));

describe("rollout thread", () => {
  it("answers like the same computation without a thread, and its errors keep their message", async () => {
    const here = await RolloutCompute.open(settings);
    await here.loadModel({ role: "actor", path });
    const expected = (await here.perform(task)).rollouts;
    await here.close();

    const pool = new ComputePool<typeof thread>("src/rollout/rollout-thread");
    try {
      await expect(pool.run("perform", task)).rejects.toThrow(/not configured yet/);
      expect(await pool.run("configure", settings)).toMatch(/^onnx: /);
      await expect(pool.run("perform", task)).rejects.toThrow(/the actor model has no weights yet/);
      await pool.run("loadModel", { role: "actor", path });
      const { rollouts } = await pool.run("perform", task);
      expect(rollouts).toEqual(expected);
      expect(await pool.run("generateOnly", task)).toEqual(expected);
    } finally {
      await pool.close();
    }
  });
});
