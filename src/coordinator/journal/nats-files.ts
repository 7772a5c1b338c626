/**
 * The run directory's files in JetStream. One stream is the index: which paths there are, with size, sha256 and the key
 * of their bytes; another holds the bytes. A file is there once the index names it, and the index is fenced as the
 * journal is: opening it writes to it, and whoever had it open before is refused from then on (see nats-log.ts).
 *
 * Bytes are stored before the index names them and removed after it has ceased to, so a loss at any moment leaves
 * bytes that nobody names, which the next coordinator to open it sweeps away.
 */
import { randomUUID } from "node:crypto";
import { mkdir, readdir, rename, rm, stat } from "node:fs/promises";
import { dirname, join, relative, sep } from "node:path";
import type { NatsConnection } from "@nats-io/transport-node";
import { storageError } from "../../shared/errors.js";
import { digestOfFile } from "../../shared/file-digest.js";
import type { DurableFiles } from "./durable-files.js";
import { frame, unframe } from "./encoding.js";
import { NatsBlobs, type BlobPlace } from "./nats-blobs.js";
import type { NatsOptions } from "./nats-connection.js";
import { NatsStream } from "./nats-stream.js";

/** What the index says of a file. */
interface KeptFile extends BlobPlace {
  /** In the run directory, with slashes. */
  readonly path: string;
  readonly sizeBytes: number;
  readonly sha256: string;
}

type IndexValue =
  | { readonly type: "opening"; readonly by: string }
  | { readonly type: "opened"; readonly by: string; readonly files: readonly KeptFile[] }
  | { readonly type: "changed"; readonly kept: readonly KeptFile[]; readonly dropped: readonly string[] };

export interface NatsFilesOptions extends Pick<NatsOptions, "run" | "replicas"> {
  readonly runDir: string;
  /** Named in the index when it is opened. */
  readonly owner: string;
  /** Changes after which the index is written anew. */
  readonly compactEvery?: number;
  /** How long a write is tried again while no server answers. */
  readonly patienceMs?: number;
}

/** What was brought into the run directory. */
export interface Restored {
  readonly files: number;
  readonly bytes: number;
}

/** Folders of the run directory whose files are kept. */
const KEPT_FOLDERS = ["checkpoints", "models", "results", "artifacts"];
/** Of them, those where a file that the index does not name was made by a coordinator that was lost before it counted. */
const PRIVATE_FOLDERS = ["results", "artifacts"];
const OPEN_ATTEMPTS = 20;
/** Being written, by this coordinator or one that was killed. */
const UNFINISHED = /\.tmp$|\.partial(-|\/|$)|(^|\/)\.tmp-/;

/**
 * Opens (or creates) the index; whoever had it open before cannot change it any more.
 * @throws {TroupeError} STORAGE; FENCED when others open it all the time
 */
export async function openNatsFiles(
  connection: NatsConnection,
  options: NatsFilesOptions,
): Promise<NatsFiles> {
  const index = await NatsStream.open(connection, { ...options, part: "FILES" });
  const blobs = await NatsStream.open(connection, { ...options, part: "BLOBS", isKeyed: true });
  const files = new NatsFiles(index, new NatsBlobs(blobs), options);
  await files.open();
  return files;
}

export class NatsFiles implements DurableFiles {
  private readonly files = new Map<string, KeptFile>();
  /** Last sequence of the index that this coordinator knows to be its own. */
  private end = 0;
  private changes = 0;
  private queue: Promise<unknown> = Promise.resolve();
  private isNew = true;

  constructor(
    private readonly index: NatsStream,
    private readonly blobs: NatsBlobs,
    private readonly options: NatsFilesOptions,
  ) {}

  async open(): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      try {
        await this.write({ type: "opening", by: this.options.owner }, await this.index.lastSequence());
        await this.load(this.end);
        await this.writeWhole(this.end);
        break;
      } catch (error) {
        // Whoever opened it meanwhile has replaced what was to be read.
        const isRaced = (await this.index.lastSequence()) !== this.end;
        if (!isRaced || attempt === OPEN_ATTEMPTS) throw error;
      }
    }
    const named = this.namedKeys();
    await this.blobs.remove((await this.blobs.keys()).filter((key) => !named.has(key)));
  }

  /**
   * Brings the run directory to where the index says, whatever an earlier coordinator left in it. A run that was
   * begun without an index takes the directory as it is.
   * @throws {TroupeError} STORAGE when a file is gone or damaged
   */
  async restore(): Promise<Restored> {
    const { runDir } = this.options;
    if (this.isNew) {
      for (const folder of KEPT_FOLDERS) await this.keep(join(runDir, folder));
      return { files: 0, bytes: 0 };
    }
    for (const folder of PRIVATE_FOLDERS)
      for (const path of await filesIn(runDir, join(runDir, folder)))
        if (!this.files.has(path)) await rm(join(runDir, path), { force: true });
    let files = 0;
    let bytes = 0;
    for (const file of this.files.values()) {
      if (await isSame(join(runDir, file.path), file)) continue;
      await this.fetch(file);
      files += 1;
      bytes += file.sizeBytes;
    }
    return { files, bytes };
  }

  async keep(path: string): Promise<void> {
    const { runDir } = this.options;
    const inside = this.inside(path);
    const found = await filesIn(runDir, path);
    const kept = await Promise.all(found.map((name) => this.store(name)));
    const unnamed = new Set(found);
    const dropped = [...this.files.keys()].filter((name) => isUnder(name, inside) && !unnamed.has(name));
    await this.change(kept, dropped);
  }

  async drop(path: string): Promise<void> {
    const inside = this.inside(path);
    await this.change(
      [],
      [...this.files.keys()].filter((name) => isUnder(name, inside)),
    );
  }

  close(): void {
    this.index.close();
    this.blobs.close();
  }

  /** Stores the bytes, unless some file has the same. */
  private async store(path: string): Promise<KeptFile> {
    const absolute = join(this.options.runDir, path);
    const digest = await digestOfFile(absolute);
    const known = this.files.get(path);
    if (known?.sha256 === digest.sha256) return known;
    return { path, ...digest, ...(await this.blobs.put(randomUUID(), absolute)) };
  }

  private async fetch(file: KeptFile): Promise<void> {
    const target = join(this.options.runDir, file.path);
    const partial = `${target}.partial-${randomUUID()}`;
    await mkdir(dirname(target), { recursive: true });
    try {
      if (!(await this.blobs.get(file, partial)))
        throw storageError(
          `${file.path} is gone from NATS, or a part of it: ${this.blobs.name} was changed by others; start the run anew`,
        );
      const { sha256 } = await digestOfFile(partial);
      if (sha256 !== file.sha256) throw storageError(`${file.path} in NATS does not match its sha256`);
      await rename(partial, target);
    } finally {
      await rm(partial, { force: true });
    }
  }

  private change(kept: readonly KeptFile[], dropped: readonly string[]): Promise<void> {
    const changed = this.queue.then(async () => {
      const news = kept.filter((file) => this.files.get(file.path)?.key !== file.key);
      const gone = dropped.filter((path) => this.files.has(path));
      if (news.length === 0 && gone.length === 0) return;
      const before = this.namedKeys();
      await this.write({ type: "changed", kept: news, dropped: gone }, this.end);
      for (const path of gone) this.files.delete(path);
      for (const file of news) this.files.set(file.path, file);
      if (++this.changes >= (this.options.compactEvery ?? 500)) await this.writeWhole(this.end);
      const after = this.namedKeys();
      // Space only: the index has already said that they are gone, and the next to open it takes what is left.
      await this.blobs.remove([...before].filter((key) => !after.has(key))).catch(() => undefined);
    });
    this.queue = changed.catch(() => undefined);
    return changed;
  }

  /** The whole index as one value, in place of all before it. */
  private async writeWhole(expectedLast: number): Promise<void> {
    const files = [...this.files.values()];
    const first = await this.write({ type: "opened", by: this.options.owner, files }, expectedLast);
    this.changes = 0;
    await this.index.purgeBefore(first).catch(() => undefined);
  }

  /** @returns sequence of the value's first message */
  private async write(value: IndexValue, expectedLast: number): Promise<number> {
    const sequences = await this.index.publish(frame(Buffer.from(JSON.stringify(value))), expectedLast);
    this.end = sequences[sequences.length - 1];
    return sequences[0];
  }

  private async load(upTo: number): Promise<void> {
    this.files.clear();
    this.isNew = true;
    for await (const { sequence, value } of this.index.read(upTo)) {
      const name = `${this.index.name}/${sequence}`;
      const read = JSON.parse(Buffer.from(unframe(name, value)).toString("utf8")) as IndexValue;
      if (read.type === "opening") continue;
      this.isNew = false;
      if (read.type === "opened") this.files.clear();
      else for (const path of read.dropped) this.files.delete(path);
      for (const file of read.type === "opened" ? read.files : read.kept) this.files.set(file.path, file);
    }
  }

  private namedKeys(): Set<string> {
    return new Set([...this.files.values()].map(({ key }) => key));
  }

  private inside(path: string): string {
    const inside = relative(this.options.runDir, path).split(sep).join("/");
    if (inside === "" || inside.startsWith(".."))
      throw storageError(`${path} is not inside the run directory ${this.options.runDir}`);
    return inside;
  }
}

const isUnder = (path: string, folder: string): boolean => path === folder || path.startsWith(`${folder}/`);

/** Paths relative to the run directory, sorted; none when there is nothing. */
async function filesIn(runDir: string, path: string): Promise<string[]> {
  const found = await stat(path).catch(() => undefined);
  const name = (absolute: string) => relative(runDir, absolute).split(sep).join("/");
  if (found === undefined) return [];
  if (found.isFile()) return [name(path)];
  const entries = await readdir(path, { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) => name(join(entry.parentPath, entry.name)))
    .filter((inside) => !UNFINISHED.test(inside))
    .sort();
}

async function isSame(path: string, { sizeBytes, sha256 }: KeptFile): Promise<boolean> {
  const found = await stat(path).catch(() => undefined);
  return found?.size === sizeBytes && (await digestOfFile(path)).sha256 === sha256;
}
