/** Immutable files by name under one folder: weights by version, training states. Written once, verified, then visible. */
import { createHash, randomUUID } from "node:crypto";
import { constants, createReadStream } from "node:fs";
import { copyFile, mkdir, open, readdir, rename, rm, stat } from "node:fs/promises";
import { dirname, join, resolve, sep } from "node:path";
import { CHUNK_BYTES } from "../rpc/channel-options.js";
import type { ArtifactRef__Output } from "../rpc/generated/troupe/v1/ArtifactRef.js";
import { isHandoverName } from "../rpc/handover.js";
import { dataError, protocolError } from "../shared/errors.js";
import { digestOfFile } from "../shared/file-digest.js";
import { makeSyncedFolder, syncFolder } from "../shared/synced-files.js";
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

  /**
   * Receives an upload. The file appears only when size and sha256 match.
   * @param admit throws when whoever sends it has lost the right to, asked before the file appears
   * @throws {TroupeError} PROTOCOL when other bytes were published under the name
   */
  async receive(
    announced: ArtifactRef,
    chunks: AsyncIterable<Uint8Array>,
    admit: () => void = () => undefined,
  ): Promise<ArtifactRef> {
    const path = this.pathOf(announced.name);
    this.refuseOther(announced.name, announced.sha256);
    await makeSyncedFolder(dirname(path));
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
      admit();
      this.refuseOther(announced.name, announced.sha256);
      await rename(partial, path);
      await syncFolder(dirname(path));
    } catch (error) {
      await file.close().catch(() => undefined);
      await rm(partial, { force: true });
      throw error;
    }
    return this.store({ ...announced, localPath: path });
  }

  /** Where workers on this host may leave files instead of sending them. Made when it is asked for. */
  async handoverDir(): Promise<string> {
    const path = join(resolve(this.folder), "handover");
    await makeSyncedFolder(path);
    return path;
  }

  /**
   * Takes over a file left in `handoverDir`: read once for its sha256, then moved.
   * @param fileName as `handoverName` makes it
   * @param admit throws when whoever left it has lost the right to, asked before the file appears
   * @returns undefined when there is none: who left it is on another machine
   * @throws {TroupeError} PROTOCOL for any other name, or when other bytes were published under the artifact's; DATA
   *   when it is not a file of the announced size
   */
  async takeOver(
    announced: ArtifactRef,
    fileName: string,
    admit: () => void = () => undefined,
  ): Promise<ArtifactRef | undefined> {
    const path = this.pathOf(announced.name);
    if (!isHandoverName(fileName))
      throw protocolError(`artifact ${announced.name}: ${JSON.stringify(fileName)} is no file of a handover`);
    const left = join(await this.handoverDir(), fileName);
    // Not through a link: what it leads to may be none of the worker's business.
    const file = await open(left, constants.O_RDONLY | constants.O_NOFOLLOW).catch(
      (error: NodeJS.ErrnoException) => {
        if (error.code === "ENOENT") return undefined;
        throw error;
      },
    );
    if (file === undefined) return undefined;
    try {
      const found = await file.stat();
      if (!found.isFile() || found.size !== announced.sizeBytes)
        throw dataError(
          `artifact ${announced.name}: expected a file of ${announced.sizeBytes} bytes, got ${found.size}`,
        );
      const hash = createHash("sha256");
      const chunks = file.createReadStream({ highWaterMark: CHUNK_BYTES, autoClose: false });
      for await (const chunk of chunks) hash.update(chunk as Buffer);
      await file.sync();
      const sha256 = hash.digest("hex");
      await makeSyncedFolder(dirname(path));
      admit();
      this.refuseOther(announced.name, sha256);
      await rename(left, path);
      await syncFolder(dirname(path));
      return await this.store({ ...announced, sha256, localPath: path });
    } catch (error) {
      await rm(left, { force: true });
      throw error;
    } finally {
      await file.close();
    }
  }

  /** Takes a file that already lies on this host (a user's model directory, a checkpoint) as it is. */
  async adopt(name: string, path: string): Promise<ArtifactRef> {
    return this.remember({ name, ...(await digestOfFile(path)), localPath: resolve(path) });
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

  private async store(ref: ArtifactRef): Promise<ArtifactRef> {
    const { files, isKept } = this.options;
    if (isKept(ref.name)) await files.keep(ref.localPath);
    return this.remember(ref);
  }

  /** Workers hold what a name stood for by its sha256. */
  private refuseOther(name: string, sha256: string): void {
    const known = this.refs.get(name)?.sha256;
    if (known !== undefined && known !== sha256)
      throw protocolError(
        `artifact ${name}: expected the sha256 ${known} under which it was published, got ${sha256}; other bytes need another name`,
      );
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
