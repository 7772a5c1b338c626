/** Immutable files by name under one folder: weights by version, training states. Written once, verified, then visible. */
import { createHash, randomUUID } from "node:crypto";
import { createReadStream } from "node:fs";
import { copyFile, mkdir, open, readdir, rename, rm, stat } from "node:fs/promises";
import { dirname, join, resolve, sep } from "node:path";
import { CHUNK_BYTES } from "../rpc/channel-options.js";
import type { ArtifactRef__Output } from "../rpc/generated/troupe/v1/ArtifactRef.js";
import { dataError, protocolError } from "../shared/errors.js";
import { FILES_ON_DISK, type DurableFiles } from "./journal/durable-files.js";

export type ArtifactRef = ArtifactRef__Output;

const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]*(\/[A-Za-z0-9][A-Za-z0-9._-]*)*$/;

/** An upload that is not complete. */
const PARTIAL = /\.safetensors\.partial-[0-9a-f-]{36}$/;

export interface ArtifactStoreOptions {
  readonly files: DurableFiles;
  /** Must an upload of this name be there for a coordinator that takes over? */
  readonly isKept: (name: string) => boolean;
}

export class ArtifactStore {
  private readonly refs = new Map<string, ArtifactRef>();

  constructor(
    private readonly folder: string,
    private readonly options: ArtifactStoreOptions = { files: FILES_ON_DISK, isKept: () => false },
  ) {}

  get(name: string): ArtifactRef {
    const ref = this.refs.get(name);
    if (ref === undefined)
      throw dataError(
        `no artifact named ${name}; it was never published, or is older than the versions kept`,
      );
    return ref;
  }

  /** Receives an upload. The file appears only when size and sha256 match. */
  async receive(announced: ArtifactRef, chunks: AsyncIterable<Uint8Array>): Promise<ArtifactRef> {
    const path = this.pathOf(announced.name);
    await mkdir(dirname(path), { recursive: true });
    const partial = `${path}.partial-${randomUUID()}`; // a learner that was given up may still be sending the same one
    const hash = createHash("sha256");
    let receivedBytes = 0;
    const file = await open(partial, "w");
    try {
      for await (const data of chunks) {
        receivedBytes += data.byteLength;
        if (receivedBytes > announced.sizeBytes)
          throw protocolError(`artifact ${announced.name}: announced ${announced.sizeBytes} bytes, got more`);
        hash.update(data);
        await file.write(data);
      }
      if (receivedBytes !== announced.sizeBytes || hash.digest("hex") !== announced.sha256) {
        throw dataError(
          `artifact ${announced.name}: bytes do not match its sha256 (${receivedBytes} of ${announced.sizeBytes} bytes arrived)`,
        );
      }
      await file.sync();
      await file.close();
      await rename(partial, path);
    } catch (error) {
      await file.close().catch(() => undefined);
      await rm(partial, { force: true });
      throw error;
    }
    const { files, isKept } = this.options;
    if (isKept(announced.name)) await files.keep(path);
    return this.remember({ ...announced, localPath: path });
  }

  /** Takes a file that already lies on this host (a user's model directory, a checkpoint) as it is. */
  async adopt(name: string, path: string): Promise<ArtifactRef> {
    const hash = createHash("sha256");
    let sizeBytes = 0;
    for await (const chunk of createReadStream(path, { highWaterMark: CHUNK_BYTES })) {
      hash.update(chunk as Buffer);
      sizeBytes += (chunk as Buffer).length;
    }
    return this.remember({ name, sizeBytes, sha256: hash.digest("hex"), localPath: resolve(path) });
  }

  /** Takes up a file an earlier process of this run stored under the name. @returns whether there was one */
  async recover(name: string): Promise<boolean> {
    const path = this.pathOf(name);
    if (
      !(await stat(path).then(
        (found) => found.isFile(),
        () => false,
      ))
    )
      return false;
    await this.adopt(name, path);
    return true;
  }

  async *read(name: string): AsyncGenerator<Buffer> {
    const ref = this.get(name);
    for await (const chunk of createReadStream(ref.localPath, { highWaterMark: CHUNK_BYTES }))
      yield chunk as Buffer;
  }

  async copyTo(name: string, path: string): Promise<void> {
    await mkdir(dirname(path), { recursive: true });
    await copyFile(this.get(name).localPath, path);
  }

  /** Forgets an artifact and deletes its file if the store wrote it. */
  async remove(name: string): Promise<void> {
    const ref = this.refs.get(name);
    if (ref === undefined) return;
    this.refs.delete(name);
    if (!ref.localPath.startsWith(resolve(this.folder) + sep)) return;
    await rm(ref.localPath, { force: true });
    if (this.options.isKept(name)) await this.options.files.drop(ref.localPath);
  }

  /** Takes away uploads that an earlier process was killed in the middle of. @returns how many */
  async clean(): Promise<number> {
    const names = await readdir(this.folder, { recursive: true }).catch((error: NodeJS.ErrnoException) => {
      if (error.code === "ENOENT") return [];
      throw error;
    });
    const partial = names.filter((name) => PARTIAL.test(name));
    for (const name of partial) await rm(join(this.folder, name), { force: true });
    return partial.length;
  }

  private remember(ref: ArtifactRef): ArtifactRef {
    this.refs.set(ref.name, ref);
    return ref;
  }

  private pathOf(name: string): string {
    if (!NAME.test(name))
      throw protocolError(
        `artifact name ${JSON.stringify(name)}: expected letters, digits, '.', '_', '-' and single slashes`,
      );
    return join(resolve(this.folder), `${name}.safetensors`);
  }
}
