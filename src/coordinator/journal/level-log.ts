/**
 * The embedded engine: one LevelDB directory, one synced batch per append; the payloads in files beside it, synced
 * before the batch that says they are there.
 *
 * Keys: `r<sequence>` records, `p<number>` where a chunk of payloads lies, `s` the newest snapshot. Sequences have no
 * holes, so a lost or reordered entry is noticed at recovery. LevelDB's lock keeps a second coordinator out.
 */
import { join } from "node:path";
import { ClassicLevel } from "classic-level";
import { emptyDurableState, type DurableRecord, type DurableState } from "../core/index.js";
import { storageError, TroupeError } from "../../shared/errors.js";
import { inSlices } from "../../shared/steps.js";
import { makeSyncedFolder } from "../../shared/synced-files.js";
import { AFTER_DAMAGE } from "../after-damage.js";
import { isWorthCompacting, type CompactionOptions, type DurableLog, type LogEntry } from "./durable-log.js";
import {
  decodeRecord,
  decodingSnapshot,
  encodeRecord,
  encodingSnapshot,
  foldRecord,
  recordKey,
  type Snapshot,
} from "./encoding.js";
import { chunkKey, decodeChunk, encodeChunk } from "./payload-chunks.js";
import { PayloadFiles, type Chunk } from "./payload-files.js";
import { checkWriteAheadLog } from "./write-ahead-log.js";

type Database = ClassicLevel<string, Uint8Array>;

const PAYLOAD_FOLDER = "payloads";
const SNAPSHOT_KEY = "s";
/** Records deleted in one batch. */
const DELETED_AT_ONCE = 1000;
/** Records read in one turn of the event loop. */
const RECORDS_A_TURN = 32;

/**
 * Opens (or creates) the log in `directory`.
 * @throws TroupeError RUN_DIR_IN_USE when another process has it open; STORAGE when it cannot be read or written.
 */
export async function openLevelLog(directory: string, options: CompactionOptions = {}): Promise<DurableLog> {
  try {
    await makeSyncedFolder(directory); // LevelDB syncs what is in it, not its name
    await checkWriteAheadLog(directory);
  } catch (error) {
    throw translate(error, directory);
  }
  const database: Database = new ClassicLevel(directory, {
    keyEncoding: "utf8",
    valueEncoding: "view",
  });
  try {
    await database.open();
  } catch (error) {
    throw translate(error, directory);
  }
  const log = new LevelLog(database, directory, options);
  try {
    await log.findEnd();
  } catch (error) {
    await database.close();
    throw error;
  }
  return log;
}

class LevelLog implements DurableLog {
  private nextSequence = 1;
  /** Every record up to here is on disk. */
  private syncedSequence = 0;
  private queue: Promise<unknown> = Promise.resolve();
  private snapshotSequence = 0;
  private snapshotBytes = 0;
  /** Of the records after the snapshot. */
  private recordBytes = 0;
  private payloads!: PayloadFiles;
  private failure: TroupeError | null = null;
  private compaction: Promise<void> | null = null;
  private isClosed = false;

  constructor(
    private readonly database: Database,
    private readonly directory: string,
    private readonly options: CompactionOptions,
  ) {}

  async findEnd(): Promise<void> {
    this.snapshotSequence = (await this.readSnapshot()).sequence;
    const [last] = await this.guard(this.database.keys({ gte: "r", lt: "s", reverse: true, limit: 1 }).all());
    this.nextSequence =
      Math.max(this.snapshotSequence, last === undefined ? 0 : parseInt(last.slice(1), 16)) + 1;
    this.syncedSequence = this.nextSequence - 1;
    const chunks: Chunk[] = [];
    for (const [key, value] of await this.guard(this.database.iterator({ gte: "p", lt: "q" }).all()))
      chunks.push(decodeChunk(key, value));
    this.payloads = await this.guard(PayloadFiles.open(join(this.directory, PAYLOAD_FOLDER), chunks));
  }

  append(entries: readonly LogEntry[]): Promise<void> {
    // One batch at a time: two at once could reach the disk in either order, and a crash would leave a hole.
    const appended = this.queue.then(() => this.appendNow(entries));
    this.queue = appended.catch(() => undefined);
    return appended;
  }

  private async appendNow(entries: readonly LogEntry[]): Promise<void> {
    if (this.failure !== null) throw this.failure;
    if (entries.length === 0) return;
    try {
      const changed = new Set(await this.payloads.write(entries.flatMap(({ put = [] }) => put)));
      for (const chunk of changed) this.payloads.adopt(chunk);
      // Chained: a list of operations costs four times as much per entry on its way to LevelDB.
      const batch = this.database.batch();
      let hasDeleted = false;
      for (const { record, delete: deleted = [] } of entries) {
        const value = encodeRecord(record);
        this.recordBytes += value.length;
        batch.put(recordKey(this.nextSequence++), value);
        for (const id of deleted) {
          const chunk = this.payloads.remove(id);
          if (chunk !== undefined) changed.add(chunk);
          hasDeleted = true;
        }
      }
      for (const chunk of changed) {
        if (chunk.ids.every((id) => id === null)) batch.del(chunkKey(chunk.number));
        else batch.put(chunkKey(chunk.number), encodeChunk(chunk));
      }
      await batch.write({ sync: true });
      if (hasDeleted) await this.payloads.sweep();
    } catch (error) {
      // The sequence numbers of this batch are a hole now: nothing may follow.
      this.failure = translate(error, this.directory);
      throw this.failure;
    }
    this.syncedSequence = this.nextSequence - 1;
    const { recordBytes, snapshotBytes } = this;
    const records = this.syncedSequence - this.snapshotSequence;
    if (isWorthCompacting({ records, recordBytes, snapshotBytes }, this.options))
      this.compact().catch((error: unknown) => this.options.onCompactionFailed?.(error));
  }

  async recover(): Promise<DurableState> {
    return (await this.fold(this.syncedSequence)).state;
  }

  async *records(): AsyncIterable<{ sequence: number; record: DurableRecord }> {
    yield* this.read(this.snapshotSequence, this.syncedSequence);
  }

  async getPayload(id: string): Promise<Uint8Array | undefined> {
    return this.guard(this.payloads.read(id));
  }

  async *payloadIds(): AsyncIterable<string> {
    yield* this.payloads.ids();
  }

  compact(): Promise<void> {
    this.compaction ??= this.writeSnapshot().finally(() => {
      this.compaction = null;
    });
    return this.compaction;
  }

  async close(): Promise<void> {
    if (this.isClosed) return;
    this.isClosed = true;
    await this.queue;
    await this.compaction?.catch(() => {});
    await this.payloads.close();
    await this.guard(this.database.close());
  }

  /** Folds the stored prefix, not the live state: that is always ahead by what is still being synced. */
  private async writeSnapshot(): Promise<void> {
    const sequence = this.syncedSequence;
    if (sequence === this.snapshotSequence) return;
    const { recordBytes } = this;
    const value = await inSlices(encodingSnapshot(await this.fold(sequence)));
    await this.guard(this.database.batch([{ type: "put", key: SNAPSHOT_KEY, value }], { sync: true }));
    this.snapshotSequence = sequence;
    this.snapshotBytes = value.length;
    this.recordBytes -= recordBytes;
    // Records below the snapshot are ignored by recovery, so a crash in here loses nothing.
    await this.guard(this.deleteRecords(sequence));
  }

  /** Synced like everything else that is written: see write-ahead-log.ts. */
  private async deleteRecords(upTo: number): Promise<void> {
    const range = { gte: "r", lte: recordKey(upTo), limit: DELETED_AT_ONCE };
    for (;;) {
      const keys = await this.database.keys(range).all();
      if (keys.length === 0) return;
      await this.database.batch(
        keys.map((key) => ({ type: "del", key })),
        { sync: true },
      );
    }
  }

  private async fold(upTo: number): Promise<Snapshot> {
    const { sequence: from, state } = await this.readSnapshot();
    for await (const { sequence, record } of this.read(from, upTo))
      foldRecord(state, recordKey(sequence), record);
    return { sequence: upTo, state };
  }

  private async *read(
    from: number,
    upTo: number,
  ): AsyncIterable<{ sequence: number; record: DurableRecord }> {
    let expected = from + 1;
    const iterator = this.database.iterator({ gte: recordKey(from + 1), lte: recordKey(upTo) });
    try {
      // Many at a time: one call per record would cost more than decoding it.
      for (
        let rows = await iterator.nextv(RECORDS_A_TURN);
        rows.length > 0;
        rows = await iterator.nextv(RECORDS_A_TURN)
      ) {
        for (const [key, value] of rows) {
          if (key !== recordKey(expected)) throw this.hole(expected, key);
          yield { sequence: expected, record: decodeRecord(key, value) };
          expected += 1;
        }
      }
      if (expected !== upTo + 1) throw this.hole(expected, "the end");
    } catch (error) {
      throw translate(error, this.directory);
    } finally {
      await iterator.close();
    }
  }

  private async readSnapshot(): Promise<Snapshot> {
    const value = await this.guard(this.database.get(SNAPSHOT_KEY));
    return value === undefined
      ? { sequence: 0, state: emptyDurableState() }
      : inSlices(decodingSnapshot(SNAPSHOT_KEY, value));
  }

  private hole(expected: number, found: string): TroupeError {
    return storageError(
      `journal ${this.directory} lacks entry ${recordKey(expected)} (found ${found}): it is damaged; ${AFTER_DAMAGE}`,
    );
  }

  private async guard<T>(result: Promise<T>): Promise<T> {
    try {
      return await result;
    } catch (error) {
      throw translate(error, this.directory);
    }
  }
}

/** LevelDB's errors as ours; the cause keeps the original. */
function translate(error: unknown, directory: string): TroupeError {
  if (error instanceof TroupeError) return error;
  const chain: { code?: string; message: string }[] = [];
  for (let cause = error; cause instanceof Error; cause = cause.cause) chain.push(cause);
  const text = chain.map((cause) => cause.message).join(": ");
  if (chain.some((cause) => cause.code === "LEVEL_LOCKED")) {
    return new TroupeError(
      "RUN_DIR_IN_USE",
      `another coordinator has ${directory} open; stop it or use another run`,
      {
        cause: error,
      },
    );
  }
  if (/no space left|disk quota|file too large/i.test(text)) {
    return storageError(`no room to write the journal in ${directory}; free disk space and start again`, {
      cause: error,
    });
  }
  return storageError(`journal ${directory} failed: ${text}`, { cause: error });
}
