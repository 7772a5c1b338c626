/**
 * The replicated engine: one JetStream stream whose order is the log's order, and one for payloads.
 *
 * An append is one value of the log stream, published on condition that the stream still ends where this coordinator
 * last wrote. That condition is the fence: opening the log writes a value too, so every coordinator that opened it
 * before is refused from then on, however long it was paused and whatever it still believes. Payloads go first and are
 * named in the value by their place; without it they are unreachable, and swept away later.
 *
 * A snapshot is a value of the same stream. It names the record it stands after; what it replaces is purged.
 */
import type { NatsConnection } from "@nats-io/transport-node";
import { emptyDurableState, type DurableRecord, type DurableState } from "../core/index.js";
import { storageError, TroupeError } from "../../shared/errors.js";
import { inSlices, type Steps } from "../../shared/steps.js";
import { AFTER_DAMAGE } from "../after-damage.js";
import { isWorthCompacting, type CompactionOptions, type DurableLog, type LogEntry } from "./durable-log.js";
import { decodingSnapshot, encodingSnapshot, foldRecord, frame, recordKey, unframe } from "./encoding.js";
import { natsError, type NatsOptions } from "./nats-connection.js";
import { NatsStream } from "./nats-stream.js";

/** Id of an experience and the payload stream's sequences that hold it. */
type PayloadPlace = readonly [id: string, sequences: readonly number[]];

type LogValue =
  | { readonly type: "opened"; readonly by: string }
  | {
      readonly type: "records";
      /** Sequence of the first record; sequences have no holes. */
      readonly first: number;
      readonly records: readonly DurableRecord[];
      readonly put: readonly PayloadPlace[];
      readonly deleted: readonly string[];
    }
  | {
      readonly type: "snapshot";
      /** Last record that it replaces. */
      readonly sequence: number;
      /** As encoding.ts writes it. Stored after the other fields and the end of their line. */
      readonly state: Uint8Array;
      readonly payloads: readonly PayloadPlace[];
    };
type RecordsValue = Extract<LogValue, { type: "records" }>;
type SnapshotValue = Extract<LogValue, { type: "snapshot" }>;

export interface NatsLogOptions extends CompactionOptions, Pick<NatsOptions, "run" | "replicas"> {
  /** Named in the log when it is opened. */
  readonly owner: string;
  /** How long an append is tried again while no server answers. */
  readonly patienceMs?: number;
}

/** Attempts at being the last who opened the log, against a coordinator that still writes. */
const OPEN_ATTEMPTS = 20;

/**
 * Opens (or creates) the log of a run. Whoever had it open before cannot append any more. The connection stays the
 * caller's to close.
 * @throws {TroupeError} STORAGE when it cannot be read or written; FENCED when others open it all the time
 */
export async function openNatsLog(connection: NatsConnection, options: NatsLogOptions): Promise<DurableLog> {
  const log = await NatsStream.open(connection, { ...options, part: "LOG" });
  const payloads = await NatsStream.open(connection, { ...options, part: "PAYLOADS" });
  const opened = new NatsLog(log, payloads, options);
  await opened.open(options.owner);
  return opened;
}

class NatsLog implements DurableLog {
  /** Last sequence of the log stream that this coordinator knows to be its own. */
  private end = 0;
  /** Last record sequence in the stream. */
  private lastRecord = 0;
  private snapshotRecord = 0;
  private snapshotBytes = 0;
  /** Of the values after the snapshot. */
  private recordBytes = 0;
  private places = new Map<string, readonly number[]>();
  /** Newest payload sequence that a value of the log names. */
  private lastPlace = 0;
  private queue: Promise<unknown> = Promise.resolve();
  private failure: TroupeError | null = null;
  private compaction: Promise<void> | null = null;
  private sweeping: Promise<void> = Promise.resolve();
  private isClosed = false;

  constructor(
    private readonly log: NatsStream,
    private readonly payloads: NatsStream,
    private readonly options: NatsLogOptions,
  ) {}

  async open(owner: string): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      const last = await this.log.lastSequence();
      try {
        this.end = await this.write(encode({ type: "opened", by: owner }), last);
        break;
      } catch (error) {
        const isRaced = error instanceof TroupeError && error.code === "FENCED";
        if (!isRaced || attempt === OPEN_ATTEMPTS) throw error;
      }
    }
    const { snapshot, tail, tailBytes } = await this.load(this.end);
    this.snapshotBytes = snapshot?.state.length ?? 0;
    this.recordBytes = tailBytes;
    this.snapshotRecord = snapshot?.sequence ?? 0;
    this.lastRecord = tail.reduce((last, { records }) => last + records.length, this.snapshotRecord);
    this.places = placesAfter(snapshot, tail);
    for (const sequences of this.places.values()) this.lastPlace = Math.max(this.lastPlace, ...sequences);
  }

  append(entries: readonly LogEntry[]): Promise<void> {
    if (this.failure !== null) return Promise.reject(this.failure);
    if (entries.length === 0) return Promise.resolve();
    const appended = this.queue.then(() => this.appendNow(entries));
    this.queue = appended.catch(() => undefined);
    return appended;
  }

  async recover(): Promise<DurableState> {
    return inSlices(foldingAfter(await this.load(this.end)));
  }

  async *records(): AsyncIterable<{ sequence: number; record: DurableRecord }> {
    const { tail } = await this.load(this.end);
    for (const { first, records } of tail)
      for (const [i, record] of records.entries()) yield { sequence: first + i, record };
  }

  async getPayload(id: string): Promise<Uint8Array | undefined> {
    const sequences = this.places.get(id);
    if (sequences === undefined) return undefined;
    const value = await this.payloads.get(sequences);
    if (value === undefined) {
      if (!this.places.has(id)) return undefined; // deleted while it was read
      throw storageError(
        `journal payload p${id} is gone from ${this.payloads.name} (messages ${sequences.join(", ")}): ${AFTER_DAMAGE}`,
      );
    }
    return unframe(`p${id}`, value);
  }

  async *payloadIds(): AsyncIterable<string> {
    yield* [...this.places.keys()];
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
    this.log.close();
    this.payloads.close();
    await this.compaction?.catch(() => {});
    await this.queue;
    await this.sweeping;
  }

  private async appendNow(entries: readonly LogEntry[]): Promise<void> {
    if (this.failure !== null) throw this.failure;
    try {
      const puts = entries.flatMap(({ put = [] }) => put);
      const put = await Promise.all(
        puts.map(async ({ id, bytes }): Promise<PayloadPlace> => [
          id,
          await this.payloads.publish(frame(bytes)),
        ]),
      );
      const deleted = entries.flatMap((entry) => entry.delete ?? []);
      const records = entries.map(({ record }) => record);
      const value: RecordsValue = { type: "records", first: this.lastRecord + 1, records, put, deleted };
      const bytes = encode(value);
      this.end = await this.write(bytes, this.end);
      this.recordBytes += bytes.length;
      this.lastRecord += records.length;
      apply(this.places, value);
      for (const [, sequences] of put) this.lastPlace = Math.max(this.lastPlace, ...sequences);
      if (deleted.length > 0) this.sweep();
    } catch (error) {
      // Whether it is in the log is unknown now: nothing may follow.
      this.failure = natsError("the journal cannot be written", error);
      throw this.failure;
    }
    const { recordBytes, snapshotBytes } = this;
    const records = this.lastRecord - this.snapshotRecord;
    if (isWorthCompacting({ records, recordBytes, snapshotBytes }, this.options) && !this.isClosed)
      this.compact().catch((error: unknown) => this.options.onCompactionFailed?.(error));
  }

  /** @returns the sequence the stream ends with now */
  private async write(value: Uint8Array, expectedLast: number): Promise<number> {
    const sequences = await this.log.publish(value, expectedLast);
    return sequences[sequences.length - 1];
  }

  /** Folds what is stored, not what is in memory, so that a snapshot never holds more than the log did. */
  private async writeSnapshot(): Promise<void> {
    const covered = this.end;
    const { recordBytes } = this;
    if (this.lastRecord === this.snapshotRecord) return;
    const loaded = await this.load(covered);
    const sequence = loaded.tail.reduce(
      (last, { records }) => last + records.length,
      loaded.snapshot?.sequence ?? 0,
    );
    const folded = await inSlices(foldingAfter(loaded));
    const state = unframe("s", await inSlices(encodingSnapshot({ sequence, state: folded })));
    const payloads = [...placesAfter(loaded.snapshot, loaded.tail)];
    const written = this.queue.then(async () => {
      if (this.failure !== null) throw this.failure;
      try {
        this.end = await this.write(encode({ type: "snapshot", sequence, state, payloads }), this.end);
      } catch (error) {
        this.failure = natsError("the journal's snapshot cannot be written", error);
        throw this.failure;
      }
      this.snapshotRecord = sequence;
      this.snapshotBytes = state.length;
      this.recordBytes -= recordBytes;
    });
    this.queue = written.catch(() => undefined);
    await written;
    // Recovery passes over records below the snapshot, so a crash in here loses nothing.
    await this.log.purgeBefore(covered + 1).catch((error: unknown) => {
      throw natsError(`NATS stream ${this.log.name} cannot be purged`, error);
    });
  }

  /** The newest snapshot among the values up to the stream sequence, and the records after it. */
  private async load(upTo: number): Promise<Loaded> {
    let snapshot: SnapshotValue | undefined;
    const all: RecordsValue[] = [];
    let tailBytes = 0;
    for await (const { sequence, value } of this.log.read(upTo)) {
      const found = parse(`${this.log.name}/${sequence}`, value);
      if (found.type === "snapshot") [snapshot, tailBytes] = [found, 0];
      if (found.type !== "records") continue;
      all.push(found);
      tailBytes += value.length;
    }
    const tail = all.filter(({ first }) => first > (snapshot?.sequence ?? 0));
    let expected = (snapshot?.sequence ?? 0) + 1;
    for (const { first, records } of tail) {
      if (first !== expected) {
        throw storageError(
          `journal ${this.log.name} lacks entry ${recordKey(expected)} (found ${recordKey(first)}): it is damaged; ${AFTER_DAMAGE}`,
        );
      }
      expected += records.length;
    }
    return { snapshot, tail, tailBytes };
  }

  /** Payloads are deleted in about the order they came, so dropping all before the oldest live one frees the space. */
  private sweep(): void {
    let keepFrom = this.lastPlace + 1;
    for (const sequences of this.places.values()) keepFrom = Math.min(keepFrom, sequences[0]);
    // Space only: the log has already said that they are gone, and the next sweep takes what this one leaves.
    this.sweeping = this.sweeping.then(() => this.payloads.purgeBefore(keepFrom)).catch(() => undefined);
  }
}

interface Loaded {
  readonly snapshot: SnapshotValue | undefined;
  readonly tail: readonly RecordsValue[];
  readonly tailBytes: number;
}

function* foldingAfter({ snapshot, tail }: Loaded): Steps<DurableState> {
  const state =
    snapshot === undefined
      ? emptyDurableState()
      : (yield* decodingSnapshot("s", frame(snapshot.state))).state;
  for (const { first, records } of tail) {
    for (const [i, record] of records.entries()) foldRecord(state, recordKey(first + i), record);
    yield;
  }
  return state;
}

function placesAfter(
  snapshot: SnapshotValue | undefined,
  tail: readonly RecordsValue[],
): Map<string, readonly number[]> {
  const places = new Map(snapshot?.payloads ?? []);
  for (const value of tail) apply(places, value);
  return places;
}

function apply(places: Map<string, readonly number[]>, { put, deleted }: RecordsValue): void {
  for (const [id, sequences] of put) places.set(id, sequences);
  for (const id of deleted) places.delete(id);
}

const LINE_END = 10;

function encode(value: LogValue): Uint8Array {
  if (value.type !== "snapshot") return frame(Buffer.from(JSON.stringify(value)));
  const { state, ...head } = value;
  return frame(Buffer.concat([Buffer.from(JSON.stringify(head) + "\n"), state]));
}

function parse(key: string, value: Uint8Array): LogValue {
  const body = unframe(key, value);
  const bytes = Buffer.from(body.buffer, body.byteOffset, body.byteLength);
  const end = bytes.indexOf(LINE_END);
  try {
    const read = JSON.parse((end === -1 ? bytes : bytes.subarray(0, end)).toString("utf8")) as LogValue;
    if (read.type !== "snapshot") return read;
    // Older releases wrote the state as text among the fields.
    return { ...read, state: end === -1 ? Buffer.from(read.state) : bytes.subarray(end + 1) };
  } catch (cause) {
    throw storageError(`journal entry ${key} is not readable JSON: the journal is damaged; ${AFTER_DAMAGE}`, {
      cause,
    });
  }
}
