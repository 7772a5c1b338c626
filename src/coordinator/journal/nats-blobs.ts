/**
 * Files of any size in JetStream: each a key of one stream, cut into messages. What a key holds never changes; which
 * keys count is for the caller to say (see nats-files.ts).
 */
import { open } from "node:fs/promises";
import { storageError } from "../../shared/errors.js";
import type { NatsStream } from "./nats-stream.js";

/** Messages on their way at once while a file is stored. */
const WINDOW = 4;

/** Where a file's bytes are. */
export interface BlobPlace {
  readonly key: string;
  readonly parts: number;
  /** Bytes of every part but the last. */
  readonly partBytes: number;
}

export class NatsBlobs {
  constructor(private readonly stream: NatsStream) {}

  get name(): string {
    return this.stream.name;
  }

  /** Resolves once the servers hold the whole file. @throws {TroupeError} STORAGE */
  async put(key: string, path: string): Promise<BlobPlace> {
    const { partBytes } = this.stream;
    const file = await open(path, "r");
    try {
      const { size } = await file.stat();
      const parts = Math.max(1, Math.ceil(size / partBytes));
      let next = 0;
      const sendSome = async (): Promise<void> => {
        for (let i = next++; i < parts; i = next++) {
          const data = Buffer.allocUnsafe(Math.min(partBytes, size - i * partBytes));
          const { bytesRead } = await file.read(data, 0, data.length, i * partBytes);
          if (bytesRead !== data.length) throw storageError(`${path} became shorter while it was stored`);
          await this.stream.publishPart(data, `${i + 1}/${parts}`, undefined, key);
        }
      };
      await Promise.all(Array.from({ length: Math.min(WINDOW, parts) }, sendSome));
      return { key, parts, partBytes };
    } finally {
      await file.close();
    }
  }

  /** Writes the file, synced; its caller checks the bytes. @returns whether all parts are there @throws {TroupeError} STORAGE */
  async get({ key, parts, partBytes }: BlobPlace, path: string): Promise<boolean> {
    const file = await open(path, "w");
    const found = new Set<number>();
    try {
      for await (const { part, data } of this.stream.partsOf(key, parts)) {
        const index = Number(part.split("/")[0]) - 1;
        if (found.has(index)) continue;
        found.add(index);
        await file.write(data, 0, data.length, index * partBytes);
      }
      await file.sync();
      return found.size === parts;
    } finally {
      await file.close();
    }
  }

  async remove(keys: Iterable<string>): Promise<void> {
    for (const key of keys) await this.stream.purgeKey(key);
  }

  keys(): Promise<string[]> {
    return this.stream.keys();
  }

  close(): void {
    this.stream.close();
  }
}
