import { createHash, randomBytes, randomUUID } from "node:crypto";
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
import { dirname, join } from "node:path";
import type { NatsConnection } from "@nats-io/transport-node";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { connectNats } from "../../src/coordinator/journal/nats-connection.js";
import { openNatsFiles } from "../../src/coordinator/journal/nats-files.js";
import { NatsStream } from "../../src/coordinator/journal/nats-stream.js";
import { failureOf } from "../unit/coordinator/journal/durable-log-contract.js";
import { hasNatsServer, NatsServer, WHY_SKIPPED } from "./nats-server.js";

describe.skipIf(!hasNatsServer)(`files in nats${WHY_SKIPPED}`, () => {
  let server: NatsServer;
  let connection: NatsConnection;
  let run: string;
  let folder: string;
  const dirs = { here: "", there: "" };

  beforeAll(async () => {
    server = await NatsServer.start();
    connection = await connectNats(
      { servers: [server.url], tokenFile: null, replicas: 1, run: "unused" },
      "test",
    );
    folder = mkdtempSync(join(tmpdir(), "troupe-nats-files-"));
  });
  beforeEach(() => {
    run = `test-${randomUUID().slice(0, 8)}`;
    dirs.here = join(folder, run, "here");
    dirs.there = join(folder, run, "there");
    for (const dir of Object.values(dirs)) mkdirSync(dir, { recursive: true });
  });
  afterAll(async () => {
    await connection?.close();
    await server?.stop();
    rmSync(folder, { recursive: true, force: true });
  });

  const openIn = (where: keyof typeof dirs, more: object = {}) =>
    openNatsFiles(connection, { run, replicas: 1, owner: where, runDir: dirs[where], ...more });
  const put = (where: keyof typeof dirs, path: string, bytes: Uint8Array | string) => {
    const absolute = join(dirs[where], path);
    mkdirSync(dirname(absolute), { recursive: true });
    writeFileSync(absolute, bytes);
    return absolute;
  };
  const text = (where: keyof typeof dirs, path: string) => readFileSync(join(dirs[where], path), "utf8");
  const sha = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");
  const storedKeys = async () =>
    (await NatsStream.open(connection, { run, replicas: 1, part: "BLOBS", isKeyed: true })).keys();

  it("brings kept files of any size, whole, into another coordinator's directory", async () => {
    const first = await openIn("here");
    await first.restore();
    const large = randomBytes(3_500_001); // four messages, the last one short
    await first.keep(put("here", "artifacts/actor/7.safetensors", large));
    await first.keep(put("here", "results/empty.json", ""));
    put("here", "checkpoints/ppo-000004/manifest.json", "{}");
    put("here", "checkpoints/ppo-000004/training-state.safetensors", large);
    await first.keep(join(dirs.here, "checkpoints/ppo-000004"));
    put("here", "results/not-kept.json", "1");

    const second = await openIn("there");
    expect(await second.restore()).toEqual({ files: 4, bytes: 2 * large.length + 2 });
    for (const path of ["artifacts/actor/7.safetensors", "checkpoints/ppo-000004/training-state.safetensors"])
      expect(sha(readFileSync(join(dirs.there, path)))).toBe(sha(large));
    expect(text("there", "results/empty.json")).toBe("");
    expect(existsSync(join(dirs.there, "results/not-kept.json"))).toBe(false);
    // What is there already is not brought again.
    expect(await (await openIn("there")).restore()).toEqual({ files: 0, bytes: 0 });
  });

  it("keeps a folder as it is: files that went from it are gone for the next coordinator too", async () => {
    const first = await openIn("here");
    await first.restore();
    put("here", "models/sft/a", "1");
    const gone = put("here", "models/sft/b", "2");
    await first.keep(join(dirs.here, "models/sft"));
    rmSync(gone);
    put("here", "models/sft/a", "3");
    await first.keep(join(dirs.here, "models/sft"));
    await (await openIn("there")).restore();
    expect(readdirSync(join(dirs.there, "models/sft"))).toEqual(["a"]);
    expect(text("there", "models/sft/a")).toBe("3");
  });

  it("drops a folder and frees its bytes, and not those of its neighbours", async () => {
    const first = await openIn("here");
    await first.restore();
    put("here", "checkpoints/ppo-1/x", "1");
    put("here", "checkpoints/ppo-10/x", "10");
    for (const name of ["ppo-1", "ppo-10"]) await first.keep(join(dirs.here, "checkpoints", name));
    expect(await storedKeys()).toHaveLength(2);
    await first.drop(join(dirs.here, "checkpoints/ppo-1"));
    expect(await storedKeys()).toHaveLength(1);
    await (await openIn("there")).restore();
    expect(readdirSync(join(dirs.there, "checkpoints"))).toEqual(["ppo-10"]);
  });

  it("refuses a coordinator that was replaced, and takes back what it had not finished", async () => {
    const first = await openIn("here");
    await first.restore();
    await first.keep(put("here", "results/a.json", "1"));
    const second = await openIn("there");
    await second.restore();
    const late = put("here", "results/b.json", "2");
    expect((await failureOf(first.keep(late))).code).toBe("FENCED");
    expect((await failureOf(first.drop(join(dirs.here, "results/a.json")))).code).toBe("FENCED");
    await second.keep(put("there", "results/c.json", "3"));
    // Back where b was made, which nobody ever heard of: it goes, and so do its bytes.
    const third = await openIn("here");
    await third.restore();
    expect(readdirSync(join(dirs.here, "results")).sort()).toEqual(["a.json", "c.json"]);
    expect(await storedKeys()).toHaveLength(2);
  });

  it("lets exactly one of two that open at the same time change anything", async () => {
    const both = await Promise.all([openIn("here"), openIn("there")]);
    const paths = [put("here", "results/x.json", "1"), put("there", "results/x.json", "2")];
    const outcomes = await Promise.allSettled(both.map((files, i) => files.keep(paths[i])));
    expect(outcomes.map(({ status }) => status).sort()).toEqual(["fulfilled", "rejected"]);
  });

  it("overwrites a file that another coordinator's directory has in another form", async () => {
    const first = await openIn("here");
    await first.restore();
    await first.keep(put("here", "results/a.json", "new"));
    put("there", "results/a.json", "old");
    await (await openIn("there")).restore();
    expect(text("there", "results/a.json")).toBe("new");
  });

  it("takes a run that was begun without it as the directory is", async () => {
    put("here", "results/sft.outcome.json", "{}");
    put("here", "models/sft/model.safetensors", "m");
    put("here", "models/reward.partial/model.safetensors", "half");
    put("here", "artifacts/actor/1.safetensors.partial-x", "half");
    await (await openIn("here")).restore();
    await (await openIn("there")).restore();
    expect(text("there", "models/sft/model.safetensors")).toBe("m");
    expect(text("there", "results/sft.outcome.json")).toBe("{}");
    expect(readdirSync(dirs.there).sort()).toEqual(["models", "results"]);
    expect(readdirSync(join(dirs.there, "models"))).toEqual(["sft"]);
  });

  it("writes its index anew after many changes and loses none of them", async () => {
    const first = await openIn("here", { compactEvery: 3 });
    await first.restore();
    for (let i = 0; i < 8; i++) await first.keep(put("here", `results/${i % 5}.json`, String(i)));
    await (await openIn("there")).restore();
    expect(["0", "1", "2", "3", "4"].map((name) => text("there", `results/${name}.json`))).toEqual([
      "5",
      "6",
      "7",
      "3",
      "4",
    ]);
  });

  it("says which file is gone when its bytes are", async () => {
    const first = await openIn("here");
    await first.restore();
    await first.keep(put("here", "results/a.json", "1"));
    const blobs = await NatsStream.open(connection, { run, replicas: 1, part: "BLOBS", isKeyed: true });
    const [key] = await blobs.keys();
    const second = await openIn("there", { patienceMs: 300 });
    await blobs.purgeKey(key);
    const error = await failureOf(second.restore());
    expect(error.code).toBe("STORAGE");
    expect(error.message).toContain("results/a.json");
  });
});
