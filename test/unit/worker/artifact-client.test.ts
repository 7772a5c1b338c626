import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { makeArtifactService } from "../../../src/coordinator/artifact-service.js";
import { ArtifactStore, type ArtifactRef } from "../../../src/coordinator/artifact-store.js";
import { CoreHost } from "../../../src/coordinator/core-host.js";
import { DEFAULT_CORE_CONFIG, makeState } from "../../../src/coordinator/core/index.js";
import { MemoryLog } from "../../../src/coordinator/journal/index.js";
import { createLogger } from "../../../src/observability/logger.js";
import { CHUNK_BYTES } from "../../../src/rpc/channel-options.js";
import { startRpcServer, type RpcServer } from "../../../src/rpc/server.js";
import { ArtifactClient } from "../../../src/worker/artifact-client.js";
import { openClients } from "../../../src/worker/coordinator-link.js";

/** Damages the chunk it is told to, in as many downloads as it is told to. */
class LossyStore extends ArtifactStore {
  /** Sizes of the chunks of every download. */
  readonly downloads: number[][] = [];
  damaged = 0;

  override async *read(name: string): AsyncGenerator<Buffer> {
    const sizes: number[] = [];
    const isDamaged = this.downloads.push(sizes) <= this.damaged;
    for await (const chunk of super.read(name)) {
      if (isDamaged && sizes.length === 1) chunk[7] ^= 1;
      sizes.push(chunk.length);
      yield chunk;
    }
  }
}

const content = Buffer.alloc(2 * CHUNK_BYTES + 1000, "weights ");
let folder: string;
let store: LossyStore;
let server: RpcServer;
let client: ArtifactClient;
let ref: ArtifactRef;

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), "troupe-artifact-client-"));
  store = new LossyStore(join(folder, "store"));
  const log = new MemoryLog();
  const logger = createLogger({ role: "coordinator", level: "silent" });
  const host = new CoreHost(
    makeState(DEFAULT_CORE_CONFIG, await log.recover()),
    log,
    logger,
    () => undefined,
  );
  host.dispatch({ type: "CoordinatorStarted" });
  const member = { workerId: "learner-0", role: "learner", requestId: "1", position: null } as const;
  host.dispatch({ type: "WorkerRegistered", ...member, policyVersion: -1 });
  const { incarnation } = host.state.volatile.members.get("learner-0")!;
  const none = {} as never;
  const artifact = makeArtifactService({ store, host, runId: "run", maxBytes: 1 << 30 });
  server = await startRpcServer(
    { membership: none, rollout: none, learner: none, control: none, artifact },
    { host: "127.0.0.1", port: 0, tokens: undefined, onRefused: () => undefined },
  );
  client = new ArtifactClient(openClients(server.address), {
    ...{ runId: "run", epoch: 1, workerId: "learner-0", incarnation },
  });
  const path = join(folder, "model.safetensors");
  writeFileSync(path, content);
  ref = await store.adopt("actor/1", path);
});
afterEach(async () => {
  await client.close();
  await server.close(0);
  rmSync(folder, { recursive: true, force: true });
});

const elsewhere = () => ({ ...ref, localPath: "/nowhere/model.safetensors" });

describe("a worker elsewhere", () => {
  it("gets the file in chunks, once for as long as it keeps it", async () => {
    const path = await client.fetch(elsewhere());
    expect(readFileSync(path).equals(content)).toBe(true);
    expect(await client.fetch(elsewhere())).toBe(path);
    expect(store.downloads).toEqual([[CHUNK_BYTES, CHUNK_BYTES, 1000]]);
    await client.forget(ref.sha256);
    await client.fetch(elsewhere());
    expect(store.downloads).toHaveLength(2);
  });

  it("refuses a download with one bit wrong and fetches it again", async () => {
    store.damaged = 1;
    expect(readFileSync(await client.fetch(elsewhere())).equals(content)).toBe(true);
    expect(store.downloads).toHaveLength(2);
  });

  it("says what is wrong when it is wrong again, and keeps nothing of it", async () => {
    store.damaged = 2;
    const before = readdirSync(tmpdir()).filter((name) => name.startsWith("troupe-artifacts-"));
    await expect(client.fetch(elsewhere())).rejects.toMatchObject({
      code: "DATA",
      message: expect.stringMatching(
        /^artifact actor\/1: bytes do not match its sha256 .*expected [0-9a-f]{64}/,
      ) as string,
    });
    const made = readdirSync(tmpdir()).filter(
      (name) => name.startsWith("troupe-artifacts-") && !before.includes(name),
    );
    for (const name of made) expect(readdirSync(join(tmpdir(), name))).not.toContain(ref.sha256);
    expect(store.downloads).toHaveLength(2);
    // A third request may find it whole.
    expect(readFileSync(await client.fetch(elsewhere())).equals(content)).toBe(true);
  });

  it("asks once for what is not there", async () => {
    await expect(client.fetch({ ...elsewhere(), name: "actor/9" })).rejects.toThrow(
      /no artifact named actor\/9/,
    );
  });
});

describe("a worker on the coordinator's host", () => {
  it("reads the file where it lies", async () => {
    expect(await client.fetch(ref)).toBe(ref.localPath);
    expect(store.downloads).toEqual([]);
  });

  it("does not take another file of the same path and size", async () => {
    const other = Buffer.from(content);
    other[CHUNK_BYTES + 3] ^= 1;
    const mine = join(folder, "mine.safetensors");
    writeFileSync(mine, other);
    const path = await client.fetch({ ...ref, localPath: mine });
    expect(path).not.toBe(mine);
    expect(readFileSync(path).equals(content)).toBe(true);
  });

  it("says so when the coordinator's own file was damaged", async () => {
    const other = Buffer.from(content);
    other[3] ^= 1;
    writeFileSync(ref.localPath, other);
    await expect(client.fetch(ref)).rejects.toMatchObject({ code: "DATA" });
    expect(store.downloads).toHaveLength(2);
  });
});
