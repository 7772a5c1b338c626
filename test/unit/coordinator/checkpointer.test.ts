import { createHash } from "node:crypto";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { parseConfig } from "../../../src/config/load.js";
import { ArtifactStore } from "../../../src/coordinator/artifact-store.js";
import { Checkpointer, verify, type CheckpointRequest } from "../../../src/coordinator/checkpointer.js";
import { DEFAULT_CORE_CONFIG, makeState } from "../../../src/coordinator/core/index.js";
import { CoreHost } from "../../../src/coordinator/core-host.js";
import { MemoryLog } from "../../../src/coordinator/journal/index.js";
import type { LearnerGroup } from "../../../src/coordinator/learner-group.js";
import { FILES_ON_DISK } from "../../../src/coordinator/journal/durable-files.js";
import { ModelFolders } from "../../../src/coordinator/model-folders.js";
import type { TokenizerInfo } from "../../../src/data/types.js";
import { createLogger } from "../../../src/observability/logger.js";
import { createMetrics } from "../../../src/observability/metrics.js";
import { EventBus, type PublishedEvent } from "../../../src/observability/progress.js";
import { storageError } from "../../../src/shared/errors.js";
import { dieAtChange, liveAgain } from "./dying-file-system.js";

vi.mock("node:fs/promises", async (importOriginal) => {
  const { dyingFileSystem } = await import("./dying-file-system.js");
  return dyingFileSystem(await importOriginal());
});

let runDir: string;
let artifacts: ArtifactStore;
let checkpointer: Checkpointer;
let host: CoreHost;
let failure: Error | undefined;
const events: PublishedEvent[] = [];
const metrics = createMetrics("coordinator", { processMetrics: false });
const stopping = new AbortController();

/** Learners that publish what the test wrote on the slate. */
const learners = {
  async publish(items: readonly { what: string; artifactName: string }[]) {
    if (failure !== undefined) throw failure;
    for (const { what, artifactName } of items) {
      const content = Buffer.from(`${what} after step ${host.state.durable.finishedStep}`);
      const sha256 = createHash("sha256").update(content).digest("hex");
      await artifacts.receive(
        { name: artifactName, sizeBytes: content.length, sha256, localPath: "" },
        Readable.from([content]),
      );
    }
    return { artifacts: [], stateSha256: "" };
  },
} as unknown as LearnerGroup;

async function begin() {
  runDir = mkdtempSync(join(existsSync("/dev/shm") ? "/dev/shm" : tmpdir(), "troupe-checkpoints-"));
  mkdirSync(join(runDir, "checkpoints"));
  writeFileSync(join(runDir, "tokenizer.json"), "{}");
  events.length = 0;
  failure = undefined;
  artifacts = new ArtifactStore(join(runDir, "artifacts"));
  const logger = createLogger({ role: "coordinator", level: "silent" });
  host = new CoreHost(
    makeState({ ...DEFAULT_CORE_CONFIG, keptCheckpoints: 2 }),
    new MemoryLog(),
    logger,
    (error) => {
      throw error;
    },
  );
  host.dispatch({ type: "CoordinatorStarted" });
  host.dispatch({ type: "StageStarted", stage: "ppo" });
  const bus = new EventBus();
  bus.subscribe((event) => events.push(event));
  const { config } = parseConfig({ file: "test", text: "data: { path: rows.jsonl }" });
  const tokenizer = {
    eosId: 1,
    bosId: null,
    padId: 0,
    vocabSize: 8,
    files: [join(runDir, "tokenizer.json")],
  };
  const models = new ModelFolders(
    join(runDir, "models"),
    config,
    artifacts,
    tokenizer as unknown as TokenizerInfo,
    { eos_token_id: 1 },
    FILES_ON_DISK,
  );
  checkpointer = new Checkpointer({
    runDir,
    runId: "run-1",
    keepLast: 2,
    keepEvery: 10,
    host,
    learners,
    artifacts,
    models,
    files: FILES_ON_DISK,
    bus,
    metrics,
    logger,
    signal: stopping.signal,
  });
  await host.settled();
}
async function end() {
  await host.close();
  rmSync(runDir, { recursive: true, force: true });
}
beforeEach(begin);
afterEach(end);

const request = (step: number): CheckpointRequest => ({
  stage: "ppo",
  step,
  completedUnits: step,
  resume: { iteration: step },
  model: {
    hfConfigJson: JSON.stringify({ model_type: "gpt2" }),
    parameters: null,
    initSeed: 1,
    directory: null,
  },
  role: "actor",
  head: "lm",
});
/** Steps are committed by learners; here the journal is told directly. */
const pretendStep = (step: number) => void (host.state.durable.finishedStep = step);
const save = (step: number) => {
  pretendStep(step);
  return checkpointer.save(request(step));
};
const folderOf = (id: string) => join(runDir, "checkpoints", id);
const checkpoints = () => readdirSync(join(runDir, "checkpoints")).sort();

describe("a checkpoint", () => {
  it("is a model directory with the training state, sealed by a manifest, named by `latest` and by the journal", async () => {
    expect(await save(4)).toBe(true);
    expect(checkpoints()).toEqual(["latest", "ppo-000004"]);
    expect(readFileSync(join(runDir, "checkpoints", "latest"), "utf8")).toBe("ppo-000004");
    const { files, ...facts } = await verify(folderOf("ppo-000004"));
    expect(facts).toEqual({
      version: 1,
      checkpointId: "ppo-000004",
      runId: "run-1",
      stage: "ppo",
      step: 4,
      completedUnits: 4,
    });
    expect(files.map(({ name }) => name)).toEqual([
      "config.json",
      "generation_config.json",
      "model.safetensors",
      "resume.json",
      "tokenizer.json",
      "training-state.safetensors",
    ]);
    expect(host.state.durable.checkpoint).toMatchObject({
      checkpointId: "ppo-000004",
      step: 4,
      resume: { iteration: 4 },
    });
    const state = await checkpointer.stateOf("ppo-000004");
    expect(readFileSync(state.localPath, "utf8")).toBe("state after step 4");
  });

  it("replaces the oldest once there are more than are kept, and takes away what a killed process began", async () => {
    mkdirSync(folderOf(".tmp-ppo-000001-999"));
    for (const step of [2, 4, 6]) await save(step);
    expect(checkpoints()).toEqual(["latest", "ppo-000004", "ppo-000006"]);
    expect(readFileSync(folderOf("latest"), "utf8")).toBe("ppo-000006");
    await expect(verify(folderOf("ppo-000004"))).resolves.toMatchObject({ step: 4 });
  });

  it("stays for good after every so many units", async () => {
    for (const step of [8, 10, 12, 14, 20, 22, 24]) await save(step);
    expect(checkpoints()).toEqual(["latest", "ppo-000010", "ppo-000020", "ppo-000022", "ppo-000024"]);
    writeFileSync(join(folderOf("ppo-000010"), "manifest.json"), "x");
    expect(await save(26)).toBe(true); // nobody can tell any more what it was after
    expect(checkpoints()).toEqual(["latest", "ppo-000010", "ppo-000020", "ppo-000024", "ppo-000026"]);
  });

  it("that is damaged is moved out of the way, told and counted; `latest` names the one before", async () => {
    for (const step of [2, 4]) await save(step);
    const count = async () =>
      (await metrics.registry.getSingleMetric("troupe_checkpoints_damaged_total")?.get())?.values[0].value;
    const before = (await count()) ?? 0;
    writeFileSync(join(folderOf("ppo-000004"), "training-state.safetensors"), "x");
    const reason = await verify(folderOf("ppo-000004")).then(
      () => "",
      (error: Error) => error.message,
    );
    host.dispatch({ type: "CheckpointDamaged", checkpointId: "ppo-000004", reason });
    await expect.poll(checkpoints).toEqual(["damaged-ppo-000004", "latest", "ppo-000002"]);
    await expect.poll(() => readFileSync(folderOf("latest"), "utf8")).toBe("ppo-000002");
    expect(await count()).toBe(before + 1);
    expect(events.at(-1)).toMatchObject({
      type: "message",
      level: "error",
      text: expect.stringMatching(
        /state\.safetensors does not match its sha256; it is set aside as/,
      ) as string,
    });
    expect(host.state.durable.checkpoint?.checkpointId).toBe("ppo-000002");
    expect(await save(6)).toBe(true);
    expect(checkpoints()).toEqual(["damaged-ppo-000004", "latest", "ppo-000002", "ppo-000006"]);
  });

  it("that was begun by a process that was killed is taken away at the start", async () => {
    mkdirSync(folderOf(".tmp-ppo-000001-999"));
    await checkpointer.clean();
    expect(checkpoints()).toEqual([]);
  });

  const failures = async () =>
    (await metrics.registry.getSingleMetric("troupe_checkpoint_failures_total")?.get())?.values[0].value;

  it("that cannot be published leaves the one before, is told and counted, and does not end training", async () => {
    await save(2);
    const before = await failures();
    failure = storageError("no space left on device");
    expect(await save(4)).toBe(false);
    expect(checkpoints()).toEqual(["latest", "ppo-000002"]);
    expect(readFileSync(folderOf("latest"), "utf8")).toBe("ppo-000002");
    expect(host.state.durable.checkpoint?.checkpointId).toBe("ppo-000002");
    expect(await failures()).toBe((before ?? 0) + 1);
    expect(events.at(-1)).toMatchObject({
      type: "message",
      level: "error",
      text: expect.stringContaining("no space left") as string,
    });
    failure = undefined;
    expect(await save(6)).toBe(true);
  });

  it("that the file system refuses leaves nothing behind, not even what was uploaded for it", async () => {
    rmSync(join(runDir, "tokenizer.json")); // one of the files it would hold cannot be copied
    expect(await save(2)).toBe(false);
    expect(checkpoints()).toEqual([]);
    expect(host.state.durable.checkpoint).toBeNull();
    expect(existsSync(join(runDir, "artifacts", "checkpoint", "ppo-000002", "state.safetensors"))).toBe(
      false,
    );
  });
});

describe("a coordinator that is killed while it saves", () => {
  it.each([
    ["lost", true, ["4 ppo-000004", "6 ppo-000006"]],
    ["kept", false, ["4 ppo-000004", "4 ppo-000006", "6 ppo-000006"]],
  ])(
    "leaves the old checkpoint or the new one, whole and named, at every change of the file system, new names %s",
    async (_, losesNames, expected) => {
      const outcomes: string[] = [];
      for (let change = 1, wasKilled = true; wasKilled; change++) {
        await end();
        await begin();
        for (const step of [2, 4]) await save(step);
        dieAtChange(change, { losesNames });
        await save(6);
        wasKilled = liveAgain();
        await checkpointer.clean();
        const { checkpoint, olderCheckpoints } = host.state.durable;
        for (const { checkpointId, step } of [checkpoint!, ...olderCheckpoints]) {
          await expect(verify(folderOf(checkpointId))).resolves.toMatchObject({ step });
          const state = await checkpointer.stateOf(checkpointId);
          expect(readFileSync(state.localPath, "utf8")).toBe(`state after step ${step}`);
        }
        const latest = readFileSync(folderOf("latest"), "utf8");
        await expect(verify(folderOf(latest))).resolves.toBeDefined();
        expect(checkpoints().filter((name) => name.startsWith(".tmp-"))).toEqual([]);
        outcomes.push(`${checkpoint!.step} ${latest}`);
        expect(await save(8)).toBe(true);
        expect(readFileSync(folderOf("latest"), "utf8")).toBe("ppo-000008");
      }
      expect([...new Set(outcomes)]).toEqual(expected);
      expect(outcomes.length).toBeGreaterThan(30);
    },
  );
});

describe("verify", () => {
  beforeEach(async () => {
    await save(2);
  });
  const folder = () => folderOf("ppo-000002");
  const change = (name: string, edit: (bytes: Buffer) => Buffer) => {
    const path = join(folder(), name);
    writeFileSync(path, edit(readFileSync(path)));
  };

  it("finds any flipped bit of any file", async () => {
    const { files } = await verify(folder());
    for (const { name, sizeBytes } of files) {
      for (const at of [0, sizeBytes >> 1, sizeBytes - 1]) {
        const flip = (bytes: Buffer) => {
          bytes[at] ^= 1 << (at % 8);
          return bytes;
        };
        change(name, flip);
        await expect(verify(folder())).rejects.toMatchObject({
          code: "DATA",
          message: expect.stringContaining(name) as string,
        });
        change(name, flip);
      }
    }
    await expect(verify(folder())).resolves.toBeDefined();
  });

  it.each<[string, () => void, RegExp]>([
    ["a missing file", () => rmSync(join(folder(), "model.safetensors")), /model\.safetensors is missing/],
    [
      "a file cut short",
      () => change("training-state.safetensors", (bytes) => bytes.subarray(0, -1)),
      /training-state/,
    ],
    ["an empty file", () => change("config.json", () => Buffer.alloc(0)), /config\.json does not match/],
    [
      "a missing manifest",
      () => rmSync(join(folder(), "manifest.json")),
      /manifest\.json is missing or damaged/,
    ],
    [
      "half a manifest",
      () => change("manifest.json", (bytes) => bytes.subarray(0, bytes.length >> 1)),
      /manifest\.json is missing or damaged/,
    ],
    [
      "a manifest that is no manifest",
      () => change("manifest.json", () => Buffer.from("{}")),
      /manifest\.json is missing or damaged/,
    ],
    [
      "a manifest that points outside the folder",
      () =>
        change("manifest.json", (bytes) =>
          Buffer.from(bytes.toString().replace("config.json", "../config.json")),
        ),
      /manifest\.json is missing or damaged/,
    ],
  ])("refuses a checkpoint with %s", async (_, damage, message) => {
    damage();
    await expect(verify(folder())).rejects.toMatchObject({
      code: "DATA",
      message: expect.stringMatching(message) as string,
    });
    await expect(checkpointer.stateOf("ppo-000002")).rejects.toMatchObject({ code: "DATA" });
  });

  it("refuses the state of another run, and of another checkpoint of this run", async () => {
    change("manifest.json", (bytes) => Buffer.from(bytes.toString().replace("run-1", "run-2")));
    await expect(checkpointer.stateOf("ppo-000002")).rejects.toThrow(/that of run-2, expected run-1/);
    change("manifest.json", (bytes) =>
      Buffer.from(bytes.toString().replace("run-2", "run-1").replace('"ppo-000002"', '"ppo-000004"')),
    );
    await expect(checkpointer.stateOf("ppo-000002")).rejects.toThrow(
      /that of ppo-000004, expected ppo-000002/,
    );
  });
});
