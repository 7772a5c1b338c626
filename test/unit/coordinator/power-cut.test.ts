/** What the journal is told must be on disk before: a power cut at every change of the file system, and right after. */
import { createHash } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { parseConfig } from "../../../src/config/load.js";
import { ArtifactStore } from "../../../src/coordinator/artifact-store.js";
import { FILES_ON_DISK } from "../../../src/coordinator/journal/durable-files.js";
import { ModelFolders } from "../../../src/coordinator/model-folders.js";
import { RunResults } from "../../../src/coordinator/run-results.js";
import { openDurability } from "../../../src/coordinator/standby-durability.js";
import type { TokenizerInfo } from "../../../src/data/types.js";
import { handoverName } from "../../../src/rpc/handover.js";
import { dieAtChange, liveAgain, losePower } from "./dying-file-system.js";

vi.mock("node:fs/promises", async (importOriginal) => {
  const { dyingFileSystem } = await import("./dying-file-system.js");
  return dyingFileSystem(await importOriginal());
});

let runDir: string;
beforeEach(() => {
  runDir = mkdtempSync(join(tmpdir(), "troupe-power-"));
});
afterEach(() => rmSync(runDir, { recursive: true, force: true }));

/**
 * Does it again and again, each time with the power cut one change later, the last time right after it was done.
 * @returns of every time, whether it was done
 */
async function cutEverywhere(
  act: () => Promise<unknown>,
  look: (isDone: boolean) => unknown,
): Promise<boolean[]> {
  const outcomes: boolean[] = [];
  for (let change = 1; outcomes.at(-1) !== true; change++) {
    for (const name of readdirSync(runDir)) rmSync(join(runDir, name), { recursive: true });
    dieAtChange(change);
    const isDone = await act().then(
      () => true,
      (error: Error) => {
        if (!isKilled(error)) throw error;
        return false;
      },
    );
    losePower();
    liveAgain();
    outcomes.push(isDone);
    await look(isDone);
  }
  return outcomes;
}

const isKilled = (error: unknown): boolean =>
  error instanceof Error && (error.message === "killed" || isKilled(error.cause));

const sha256 = (bytes: Buffer) => createHash("sha256").update(bytes).digest("hex");

/** A safetensors file without tensors, as a learner publishes an adapter. */
function adapterFile(): Buffer {
  const header = JSON.stringify({ __metadata__: { troupe_adapter_config: '{"r":8}' } });
  const text = Buffer.from(header.padEnd(Math.ceil(header.length / 8) * 8));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  return Buffer.concat([length, text]);
}

it("a stage whose outcome is stored has left its model and its adapter, whole", async () => {
  const elsewhere = mkdtempSync(join(tmpdir(), "troupe-trained-"));
  const [weights, adapter, tokenizer] = ["weights", "adapter", "tokenizer.json"].map((name) =>
    join(elsewhere, name),
  );
  writeFileSync(weights, "weights of the last step");
  writeFileSync(adapter, adapterFile());
  writeFileSync(tokenizer, "{}", { mode: 0o444 });
  const { config } = parseConfig({ file: "test", text: "data: { path: rows.jsonl }" });
  const info = {
    eosId: 1,
    bosId: null,
    padId: 0,
    vocabSize: 8,
    files: [tokenizer],
  } as unknown as TokenizerInfo;
  const artifacts = new ArtifactStore(join(runDir, "artifacts"));
  const generation = { eos_token_id: 1 };
  const models = new ModelFolders(join(runDir, "models"), config, artifacts, info, generation, FILES_ON_DISK);
  const source = { hfConfigJson: '{"model_type":"gpt2"}', parameters: null, initSeed: 1, directory: null };
  const trained = async () => {
    await models.save("sft", source, "lm", weights);
    await models.saveAdapter("sft", source, adapter);
    return { stateSha256: "abc" };
  };
  const finish = () => new RunResults(runDir, FILES_ON_DISK).remember("sft.outcome", trained);

  const found = () =>
    Object.fromEntries(
      ["sft", "sft-adapter"].flatMap((folder) =>
        readdirSync(join(runDir, "models", folder))
          .sort()
          .map((name) => [`${folder}/${name}`, readFileSync(join(runDir, "models", folder, name), "utf8")]),
      ),
    );
  await finish();
  const whole = found();
  expect(Object.keys(whole)).toContain("sft/model.safetensors");
  expect(Object.keys(whole)).toContain("sft-adapter/adapter_config.json");
  const outcomes = await cutEverywhere(finish, async (isDone) => {
    const outcome = await new RunResults(runDir, FILES_ON_DISK).recall("sft.outcome");
    if (isDone) expect(outcome).toEqual({ stateSha256: "abc" });
    if (outcome !== undefined) expect(found()).toEqual(whole);
  });
  expect(outcomes.length).toBeGreaterThan(20);
  rmSync(elsewhere, { recursive: true });
});

it.each(["an upload", "a handover"])(
  "weights that %s brought are there, whole, once they are stored",
  async (how) => {
    const bytes = Buffer.from("weights of version 7");
    const ref = { name: "actor/7", sizeBytes: bytes.length, sha256: sha256(bytes), localPath: "" };
    const store = () => new ArtifactStore(join(runDir, "artifacts"));
    const bring = async () => {
      if (how === "an upload")
        return store().receive(ref, Readable.from([bytes.subarray(0, 9), bytes.subarray(9)]));
      const name = handoverName();
      writeFileSync(join(await store().handoverDir(), name), bytes);
      return store().takeOver(ref, name);
    };
    const outcomes = await cutEverywhere(bring, async (isDone) => {
      const isThere = await store().recover("actor/7");
      if (isDone) expect(isThere).toBe(true);
      if (isDone) expect(readFileSync(join(runDir, "artifacts", "actor", "7.safetensors"))).toEqual(bytes);
    });
    expect(outcomes.length).toBeGreaterThan(3);
  },
);

it("a run keeps the name that its checkpoints carry", async () => {
  const { config } = parseConfig({ file: "test", text: "data: { path: rows.jsonl }" });
  const { signal } = new AbortController();
  const folder = () => join(runDir, "run");
  let runId: string | undefined;
  const open = async () => {
    const durability = await openDurability({
      config,
      runDir: folder(),
      standby: false,
      mayContinue: true,
      allowDrift: false,
      signal,
    });
    await durability!.log.close();
    return durability!.runId;
  };
  const outcomes = await cutEverywhere(
    async () => (runId = await open()),
    async (isDone) => {
      if (isDone) expect(await open()).toBe(runId);
      else await open(); // what a cut left does not keep the next one from beginning
    },
  );
  expect(outcomes.length).toBeGreaterThan(3);
});

it("an empty run-id is no name", async () => {
  const { config } = parseConfig({ file: "test", text: "data: { path: rows.jsonl }" });
  writeFileSync(join(runDir, "run-id"), "\n");
  await expect(
    openDurability({
      config,
      runDir,
      standby: false,
      mayContinue: true,
      allowDrift: false,
      signal: new AbortController().signal,
    }),
  ).rejects.toMatchObject({ code: "DATA", message: expect.stringContaining("run-id") as string });
});
