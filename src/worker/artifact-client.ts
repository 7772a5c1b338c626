/**
 * Files from and to the coordinator, whole or not at all. On the coordinator's own host the file is read where it
 * lies; elsewhere it is streamed into a cache folder. Either way its sha256 is checked once before anybody sees it.
 */
import { createHash } from "node:crypto";
import { once } from "node:events";
import { createReadStream } from "node:fs";
import { mkdtemp, open, rename, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import type * as grpc from "@grpc/grpc-js";
import { CHUNK_BYTES } from "../rpc/channel-options.js";
import { BULK_DEADLINE_MS, deadlineIn } from "../rpc/deadlines.js";
import type { ArtifactChunk__Output } from "../rpc/generated/troupe/v1/ArtifactChunk.js";
import type { ArtifactRef__Output } from "../rpc/generated/troupe/v1/ArtifactRef.js";
import type { Sender } from "../rpc/generated/troupe/v1/Sender.js";
import { fromServiceError } from "../rpc/status.js";
import { dataError, errorCodeOf, protocolError } from "../shared/errors.js";
import { digestOfFile } from "../shared/file-digest.js";
import type { Clients } from "./coordinator-link.js";

export class ArtifactClient {
  private cacheDir: string | undefined;
  private readonly cached = new Map<string, string>();

  constructor(
    private readonly clients: Clients,
    private readonly sender: Sender,
    /** Called for every piece that arrives. */
    private readonly onPiece: () => void = () => undefined,
  ) {}

  /**
   * Path of a local file with the artifact's bytes. Downloads are kept until `forget` or `close`.
   * @throws {TroupeError} DATA when the bytes do not have the sha256 the reference names, twice in a row
   */
  async fetch(ref: ArtifactRef__Output): Promise<string> {
    if (await isOnThisHost(ref)) return ref.localPath;
    const known = this.cached.get(ref.sha256);
    if (known !== undefined) return known;
    this.cacheDir ??= await mkdtemp(join(tmpdir(), "troupe-artifacts-"));
    const target = join(this.cacheDir, ref.sha256);
    await this.download(ref, target).catch((error: unknown) => {
      // Damaged on its way or at its source: the second try tells.
      if (errorCodeOf(error) !== "DATA") throw error;
      return this.download(ref, target);
    });
    this.cached.set(ref.sha256, target);
    return target;
  }

  async forget(sha256: string): Promise<void> {
    const path = this.cached.get(sha256);
    if (path === undefined) return;
    this.cached.delete(sha256);
    await rm(path, { force: true });
  }

  /** Uploads a file; resolves when the coordinator has stored and verified it. */
  async publish(name: string, path: string): Promise<ArtifactRef__Output> {
    const { sha256, sizeBytes } = await digestOfFile(path);
    const ref = await this.send({ name, sha256, sizeBytes, localPath: "" }, path);
    if (ref === undefined) throw protocolError("PublishReply.ref: expected a value, got none");
    return ref;
  }

  /**
   * Gives away a file in the coordinator's handover folder: nothing is sent, the coordinator moves it. Uploads and
   * removes it when the coordinator sees no such file: the folder is another machine's then.
   */
  async handOver(name: string, path: string): Promise<ArtifactRef__Output> {
    try {
      const { size } = await stat(path);
      const ref = await this.send({ name, sha256: "", sizeBytes: size, localPath: basename(path) });
      return ref ?? (await this.publish(name, path));
    } finally {
      await rm(path, { force: true });
    }
  }

  /** @returns undefined when the reply holds none */
  private send(ref: ArtifactRef__Output, path?: string): Promise<ArtifactRef__Output | undefined> {
    return new Promise((resolve, reject) => {
      const fail = (error: unknown) => reject(fromServiceError(error, `publishing ${ref.name}`));
      const call = this.clients.artifact.publish(
        { deadline: deadlineIn(BULK_DEADLINE_MS) } as never,
        (error: grpc.ServiceError | null, reply?: { ref: ArtifactRef__Output | null }) => {
          if (error) fail(error);
          else resolve(reply?.ref ?? undefined);
        },
      );
      (async () => {
        call.write({ sender: this.sender, ref });
        if (path !== undefined)
          for await (const chunk of createReadStream(path, { highWaterMark: CHUNK_BYTES })) {
            if (!call.write({ data: chunk as Buffer })) await once(call, "drain");
          }
        call.end();
      })().catch((error: unknown) => {
        call.cancel();
        fail(error);
      });
    });
  }

  async close(): Promise<void> {
    if (this.cacheDir !== undefined) await rm(this.cacheDir, { recursive: true, force: true });
    this.cacheDir = undefined;
    this.cached.clear();
  }

  private async download(ref: ArtifactRef__Output, target: string): Promise<void> {
    const partial = `${target}.partial`;
    const hash = createHash("sha256");
    let receivedBytes = 0;
    const file = await open(partial, "w");
    const call = this.clients.artifact.fetch(
      { sender: this.sender, name: ref.name },
      { deadline: deadlineIn(BULK_DEADLINE_MS) },
    );
    try {
      for await (const message of call) {
        const { data } = message as ArtifactChunk__Output;
        receivedBytes += data.byteLength;
        if (receivedBytes > ref.sizeBytes)
          throw protocolError(`artifact ${ref.name}: expected ${ref.sizeBytes} bytes, got more`);
        hash.update(data);
        await file.writeFile(data);
        this.onPiece();
      }
      await file.close();
      const sha256 = hash.digest("hex");
      if (receivedBytes !== ref.sizeBytes || sha256 !== ref.sha256)
        throw dataError(
          `artifact ${ref.name}: bytes do not match its sha256 (${receivedBytes} of ${ref.sizeBytes} bytes arrived; expected ${ref.sha256}, got ${sha256})`,
        );
      await rename(partial, target);
    } catch (error) {
      call.cancel();
      await file.close().catch(() => undefined);
      await rm(partial, { force: true });
      throw fromServiceError(error, `fetching ${ref.name}`);
    }
  }
}

/**
 * Does this very file lie here? On another machine there may be one of the same path and size, from a run that was
 * moved or a folder that was copied: only its bytes tell.
 */
async function isOnThisHost({ localPath, sizeBytes, sha256 }: ArtifactRef__Output): Promise<boolean> {
  if (localPath === "") return false;
  try {
    return (await stat(localPath)).size === sizeBytes && (await digestOfFile(localPath)).sha256 === sha256;
  } catch {
    return false; // no such file here, or none that can be read
  }
}
