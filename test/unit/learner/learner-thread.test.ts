import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { execFileSync } from "node:child_process";
import { MessageChannel } from "node:worker_threads";
import { LearnerCompute, type GradientsSoFar } from "../../../src/learner/learner-compute.js";
import type * as learnerThread from "../../../src/learner/learner-thread.js";
import { denominatorOf } from "../../../src/learner/shards.js";
import { ComputePool } from "../../../src/worker/compute-pool.js";
import { packageRoot } from "../../../src/shared/paths.js";
import { fromThreadError } from "../../../src/worker/thread-error.js";
import { ppoRows, ppoSettings, sftSettings, shardsOf } from "./fixtures.js";

let pool: ComputePool<typeof learnerThread>;
beforeAll(() => {
  execFileSync(process.execPath, ["scripts/build.mjs"], { cwd: packageRoot }); // threads run the compiled form
  pool = new ComputePool<typeof learnerThread>("src/learner/learner-thread");
});
afterAll(() => pool.close());

/** The error of a call, as the pool's callers see it. */
const errorOf = (call: Promise<unknown>): Promise<unknown> => call.then(() => undefined, fromThreadError);

describe("the learner thread", () => {
  it("says that it must be configured first, with our error code", async () => {
    expect(await errorOf(pool.run("stateSha256", undefined))).toMatchObject({
      code: "INTERNAL",
      message: expect.stringContaining("configured") as string,
    });
  });

  it("computes, applies and hashes as LearnerCompute does, and gives errors back with their code", async () => {
    const settings = ppoSettings();
    const rows = { kind: "ppo", rows: ppoRows(4) } as const;
    const request = {
      shards: shardsOf(rows, 2),
      shardCount: 2,
      denominators: { main: denominatorOf(rows), ptx: 0 },
    };
    const apply = { learningRates: { actor: 0.01, critic: 0.01 }, optimizerStep: 1 };

    const local = await LearnerCompute.open(settings);
    const expected = await local.computeShards(request);
    const { parameterCount } = await pool.run("configure", settings);
    expect(parameterCount).toBe(local.parameterCount);
    const { port1, port2 } = new MessageChannel();
    const told = new Promise<GradientsSoFar>((resolve) => port1.once("message", resolve));
    const result = await pool.run("computeShards", { ...request, progress: port2 }, [port2]);
    const { nodes, elementCount, finalElements } = await told;
    port1.close();
    expect([nodes, elementCount]).toEqual([expected.nodes, parameterCount]); // the memory itself, not a copy of then
    expect(finalElements).toBeLessThan(elementCount);
    expect(result.stats).toEqual(expected.stats);
    expect(result.nodes).toEqual(expected.nodes);
    expect(result.elementCount).toBe(parameterCount);

    await local.applyGradients({ ...apply, gradients: expected.nodes[0].gradients });
    await pool.run("applyGradients", { ...apply, gradients: result.nodes[0].gradients });
    expect(await pool.run("stateSha256", undefined)).toBe(await local.stateSha256());
    await local.close();

    const bad = new Float32Array(parameterCount).fill(NaN);
    expect(await errorOf(pool.run("applyGradients", { ...apply, gradients: bad }))).toMatchObject({
      code: "NUMERIC",
    });
  });

  it("goes on to another stage", async () => {
    const { parameterCount } = await pool.run("configure", sftSettings);
    expect(parameterCount).toBeGreaterThan(0);
    await expect(pool.run("exportModel", { role: "actor", path: "unused" })).rejects.toThrow(
      /no model in role actor/,
    );
  });
});
