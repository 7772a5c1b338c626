/**
 * The bytes of experiences beside the embedded log: files that are only appended to. A payload is written once, to disk
 * before the log says where it lies, and its file goes when nobody can ask for any of its payloads any more. LevelDB
 * would write each of them three times (log, table, compaction) and check it byte by byte.
 *
 * Which payloads exist is what the log says: it keeps one entry per chunk, the payloads of one write.
 */
import { open, readdir, unlink, type FileHandle } from "node:fs/promises";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import type { ExperienceId } from "../../rl/types.js";
import { storageError } from "../../shared/errors.js";
import { makeSyncedFolder, syncFolder } from "../../shared/synced-files.js";
import { AFTER_DAMAGE } from "../after-damage.js";

/** A file that has grown to this gets no more payloads. */
const FILE_BYTES = 64 << 20;
/** Payloads of one chunk at most: its entry is written again when some of them are deleted. */
const CHUNK_PAYLOADS = 256;

export interface Payload {
  readonly id: ExperienceId;
  readonly bytes: Uint8Array;
}

/** Payloads that lie one after the other. */
export interface Chunk {
  readonly number: number;
  /** Number of the file, and where in it the first one starts, bytes. */
  readonly file: number;
  readonly start: number;
  /** Null: deleted. */
  readonly ids: (ExperienceId | null)[];
  readonly lengths: readonly number[];
  readonly crcs: readonly number[];
}

interface PayloadFile {
  readonly number: number;
  readonly path: string;
  handle: Promise<FileHandle> | null;
  /** Payloads in it that are not deleted. */
  live: number;
}

const nameOf = (number: number): string => `${number.toString().padStart(8, "0")}.payloads`;

export class PayloadFiles {
  private readonly chunks = new Map<ExperienceId, Chunk>();
  private readonly files = new Map<number, PayloadFile>();
  /** Where new payloads go. */
  private current: (PayloadFile & { size: number }) | null = null;
  private nextChunk = 1;
  private nextFile = 1;

  private constructor(private readonly folder: string) {}

  /** @param chunks those the log knows; files of none of them are left from a crash and go */
  static async open(folder: string, chunks: readonly Chunk[]): Promise<PayloadFiles> {
    const files = new PayloadFiles(folder);
    await makeSyncedFolder(folder);
    const stored = (await readdir(folder)).filter((name) => name.endsWith(".payloads")).map(parseFloat);
    for (const number of stored) files.add(number);
    for (const chunk of chunks) {
      if (!files.files.has(chunk.file)) files.add(chunk.file); // reading from it will say that it is gone
      files.adopt(chunk);
      files.nextChunk = Math.max(files.nextChunk, chunk.number + 1);
    }
    files.nextFile = Math.max(0, ...files.files.keys()) + 1;
    await files.sweep();
    return files;
  }

  /** Returns once the payloads would survive a power cut; they exist when the log has their chunks. */
  async write(payloads: readonly Payload[]): Promise<Chunk[]> {
    if (payloads.length === 0) return [];
    if (this.current === null || this.current.size >= FILE_BYTES) await this.begin();
    const { current } = this;
    const handle = await current!.handle!;
    let start = current!.size;
    const chunks: Chunk[] = [];
    for (let first = 0; first < payloads.length; first += CHUNK_PAYLOADS) {
      const of = payloads.slice(first, first + CHUNK_PAYLOADS);
      const lengths = of.map(({ bytes }) => bytes.byteLength);
      const ids = of.map(({ id }) => id);
      const crcs = of.map(({ bytes }) => crc32(bytes));
      chunks.push({ number: this.nextChunk++, file: current!.number, start, ids, lengths, crcs });
      for (const length of lengths) start += length;
    }
    await writeAll(
      handle,
      payloads.map(({ bytes }) => bytes),
      current!.size,
    );
    await handle.datasync();
    current!.size = start;
    return chunks;
  }

  /** The log has it, or is about to. */
  adopt(chunk: Chunk): void {
    const file = this.files.get(chunk.file)!;
    for (const id of chunk.ids) {
      if (id === null) continue;
      this.chunks.set(id, chunk);
      file.live += 1;
    }
  }

  /** @returns the chunk that lacks it now */
  remove(id: ExperienceId): Chunk | undefined {
    const chunk = this.chunks.get(id);
    if (chunk === undefined) return undefined;
    this.chunks.delete(id);
    chunk.ids[chunk.ids.indexOf(id)] = null;
    this.files.get(chunk.file)!.live -= 1;
    return chunk;
  }

  ids(): Iterable<ExperienceId> {
    return [...this.chunks.keys()];
  }

  /** @throws {TroupeError} STORAGE when what lies there is not what was written; errors of the file system as they are */
  async read(id: ExperienceId): Promise<Uint8Array | undefined> {
    const chunk = this.chunks.get(id);
    if (chunk === undefined) return undefined;
    const place = chunk.ids.indexOf(id);
    const at = chunk.lengths.slice(0, place).reduce((sum, length) => sum + length, chunk.start);
    const bytes = Buffer.alloc(chunk.lengths[place]);
    const file = this.files.get(chunk.file)!;
    try {
      file.handle ??= open(file.path, "r");
      const { bytesRead } = await (await file.handle).read(bytes, 0, bytes.length, at);
      if (bytesRead === bytes.length && crc32(bytes) === chunk.crcs[place]) return bytes;
    } catch (error) {
      if (!this.chunks.has(id)) return undefined; // deleted while it was read
      throw error;
    }
    throw storageError(
      `journal entry p${id} is damaged (checksum differs in ${file.path} at ${at}, ${bytes.length} bytes): ${AFTER_DAMAGE}`,
    );
  }

  /** Deletes files of which nothing is left; to be called when the log has said so. */
  async sweep(): Promise<void> {
    for (const file of [...this.files.values()]) {
      if (file.live > 0 || file.number === this.current?.number) continue;
      this.files.delete(file.number);
      await close(file);
      await unlink(file.path).catch(() => undefined); // the next start takes what stays
    }
  }

  async close(): Promise<void> {
    await Promise.all([...this.files.values()].map(close));
  }

  private add(number: number): PayloadFile {
    const file = { number, path: join(this.folder, nameOf(number)), handle: null, live: 0 };
    this.files.set(number, file);
    return file;
  }

  private async begin(): Promise<void> {
    const before = this.current;
    const file = this.add(this.nextFile++);
    file.handle = open(file.path, "wx+");
    await file.handle;
    await syncFolder(this.folder);
    this.current = Object.assign(file, { size: 0 });
    if (before?.live === 0) await this.sweep();
  }
}

async function writeAll(handle: FileHandle, pieces: readonly Uint8Array[], at: number): Promise<void> {
  let rest = pieces;
  for (let position = at; rest.length > 0;) {
    const { bytesWritten } = await handle.writev(rest, position);
    position += bytesWritten;
    rest = remainderOf(rest, bytesWritten);
  }
}

/** What lies behind the first `bytes`. */
function remainderOf(pieces: readonly Uint8Array[], bytes: number): Uint8Array[] {
  let skip = bytes;
  return pieces.flatMap((piece) => {
    const skipped = Math.min(skip, piece.byteLength);
    skip -= skipped;
    return skipped === piece.byteLength ? [] : [piece.subarray(skipped)];
  });
}

async function close(file: PayloadFile): Promise<void> {
  const { handle } = file;
  file.handle = null;
  await handle?.then(
    (opened) => opened.close(),
    () => undefined,
  );
}
