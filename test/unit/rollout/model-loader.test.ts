import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { layoutOf, toHfConfig } from "../../../src/models/model-spec.js";
import { ModelLoader } from "../../../src/rollout/model-loader.js";
import type * as thread from "../../../src/rollout/rollout-thread.js";
import { dataError } from "../../../src/shared/errors.js";
import { writeSafetensors } from "../../../src/shared/safetensors.js";
import { ComputePool } from "../../../src/worker/compute-pool.js";
import { SAMPLING, tinyParams, tinyPrompts, tinySpec } from "./tiny-models.js";

const folder = mkdtempSync(join(tmpdir(), "troupe-loader-"));
const spec = tinySpec();
const hfConfigJson = JSON.stringify(toHfConfig(spec));
const pool = new ComputePool<typeof thread>("src/rollout/rollout-thread");
const fetched: string[] = [];
let isDamaged = false;
const artifacts = {
  fetch: ({ sha256 }: { sha256: string }) => {
    fetched.push(sha256);
    if (isDamaged) return Promise.reject(dataError("bytes do not match"));
    return Promise.resolve(join(folder, sha256));
  },
  forget: () => Promise.resolve(),
};
const loaded = new Map<string, string>();
const loader = new ModelLoader({ compute: pool, loaded }, artifacts, () => undefined);
const versionOf = (version: number) => ({
  ...{ role: "actor", head: "lm", hfConfigJson, initSeed: 0, base: null },
  parameters: { name: `actor/${version}`, sha256: `v${version}`, sizeBytes: 1, localPath: "" },
});
const answers = async () =>
  (
    await pool.run("generateOnly", {
      prompts: tinyPrompts(12).map(({ key, promptIds }, promptIndex) => ({
        ...{ promptIndex, sampleIndex: 0, experienceId: key, promptIds },
      })),
      policyVersion: 1,
      sampling: { ...SAMPLING, minNewTokens: 12 },
    })
  ).map(({ responseIds }) => [...responseIds]);

beforeAll(async () => {
  for (const version of [1, 2])
    await writeSafetensors(join(folder, `v${version}`), layoutOf(spec).entries, tinyParams(spec, version));
  await pool.run("configure", {
    ...{ engine: { name: "onnx", threads: 1 }, eosIds: [1], slots: 4, maxSequenceTokens: 48 },
    models: [{ role: "actor", head: "lm", hfConfigJson }],
  });
});
afterAll(async () => {
  await pool.close();
  rmSync(folder, { recursive: true });
});

describe("ModelLoader", () => {
  it("swaps between sequences: what was begun under a version ends under it, whatever is loaded meanwhile", async () => {
    await loader.load(versionOf(1));
    const ofFirst = await answers();
    const during = answers();
    const swap = loader.load(versionOf(2));
    const after = answers();
    expect(await during).toEqual(ofFirst);
    await swap;
    const ofSecond = await answers();
    expect(ofSecond).not.toEqual(ofFirst);
    // Asked for before the file was here: all of one version.
    expect([ofFirst, ofSecond]).toContainEqual(await after);
  });

  it("fetches nothing that is loaded already", async () => {
    fetched.length = 0;
    await loader.load(versionOf(2));
    await loader.load(versionOf(1));
    await loader.load(versionOf(1));
    expect(fetched).toEqual(["v1"]);
  });

  it("computes on with the old version when the new one is damaged, and fetches that again when asked", async () => {
    await loader.load(versionOf(1));
    const before = await answers();
    isDamaged = true;
    await expect(loader.load(versionOf(2))).rejects.toMatchObject({ code: "DATA" });
    isDamaged = false;
    expect(loaded.get("actor")).toBe("v1");
    expect(await answers()).toEqual(before);
    await loader.load(versionOf(2));
    expect(await answers()).not.toEqual(before);
  });
});
