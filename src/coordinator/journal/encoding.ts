/**
 * Bytes of a journal value: `[version u8][crc32 u32 little-endian][body]`. Records and snapshots are JSON, payloads
 * are the experience's own bytes. The checksum covers the body; the version is that of this layout.
 */
import { crc32 } from "node:zlib";
import {
  applyRecord,
  emptyDurableState,
  type Collection,
  type DurableRecord,
  type DurableState,
  type ExperienceEntry,
} from "../core/index.js";
import { storageError } from "../../shared/errors.js";
import { atOnce, type Steps } from "../../shared/steps.js";
import { AFTER_DAMAGE } from "../after-damage.js";

const FORMAT_VERSION = 2;
const HEADER_BYTES = 5;

/** 16 hex digits hold every safe integer and sort like numbers. */
export const recordKey = (sequence: number): string => `r${sequence.toString(16).padStart(16, "0")}`;

export function frame(body: Uint8Array): Uint8Array {
  const value = Buffer.allocUnsafe(HEADER_BYTES + body.length);
  value[0] = FORMAT_VERSION;
  value.writeUInt32LE(crc32(body), 1);
  value.set(body, HEADER_BYTES);
  return value;
}

/** @throws STORAGE naming `key` when the value is of another format or damaged. */
export function unframe(key: string, value: Uint8Array): Uint8Array {
  if (value[0] !== FORMAT_VERSION) {
    throw storageError(
      `journal entry ${key} has format ${value[0]}, expected ${FORMAT_VERSION}: use the release that wrote this run directory`,
    );
  }
  const body = value.subarray(HEADER_BYTES);
  const expected = new DataView(value.buffer, value.byteOffset, value.byteLength);
  if (value.length < HEADER_BYTES || expected.getUint32(1, true) !== crc32(body)) {
    throw storageError(
      `journal entry ${key} is damaged (checksum differs, ${value.length} bytes): ${AFTER_DAMAGE}`,
    );
  }
  return body;
}

export function encodeRecord(record: DurableRecord): Uint8Array {
  return frame(Buffer.from(JSON.stringify(record)));
}

export function decodeRecord(key: string, value: Uint8Array): DurableRecord {
  return parse(key, unframe(key, value)) as DurableRecord;
}

/** A snapshot replaces every record up to and including `sequence`. */
export interface Snapshot {
  readonly sequence: number;
  readonly state: DurableState;
}

/** Entries of one line of a snapshot: what is written or read without a pause. */
const LINE_ENTRIES = 1000;

interface SnapshotLine {
  readonly collection?: Collection;
  readonly experiences?: [string, ExperienceEntry][];
  readonly retained?: string[];
}

/** JSON lines: the plain fields, then the collections and everything that is kept per experience in parts. */
export function* encodingSnapshot({ sequence, state }: Snapshot): Steps<Uint8Array> {
  const { collections, experiences, retained, ...plain } = state;
  const lines = [JSON.stringify({ sequence, ...plain })];
  function* add(line: SnapshotLine): Steps<void> {
    lines.push(JSON.stringify(line));
    yield;
  }
  for (const collection of collections.values()) yield* add({ collection });
  for (const part of inParts(experiences)) yield* add({ experiences: part });
  for (const part of inParts(retained)) yield* add({ retained: part });
  return frame(Buffer.from(lines.join("\n")));
}

export const encodeSnapshot = (snapshot: Snapshot): Uint8Array => atOnce(encodingSnapshot(snapshot));

/** @throws STORAGE like `unframe` */
export function* decodingSnapshot(key: string, value: Uint8Array): Steps<Snapshot> {
  const body = unframe(key, value);
  const [head, ...lines] = Buffer.from(body.buffer, body.byteOffset, body.byteLength)
    .toString("utf8")
    .split("\n");
  type Plain = Omit<DurableState, "collections" | "experiences" | "retained">;
  // Older releases wrote everything in the first line.
  const { sequence, collections, experiences, retained, ...plain } = parseText(key, head) as Plain & {
    sequence: number;
    collections?: Collection[];
  } & Omit<SnapshotLine, "collection">;
  const empty = emptyDurableState();
  const state = {
    ...empty,
    ...plain,
    // Written before there was a count, a snapshot lacks it.
    counts: { ...empty.counts, ...plain.counts },
  };
  for (const collection of collections ?? []) state.collections.set(collection.iteration, collection);
  for (const [id, entry] of experiences ?? []) state.experiences.set(id, entry);
  for (const id of retained ?? []) state.retained.add(id);
  for (const line of lines) {
    yield;
    const { collection, experiences = [], retained = [] } = parseText(key, line) as SnapshotLine;
    if (collection !== undefined) state.collections.set(collection.iteration, collection);
    for (const [id, entry] of experiences) state.experiences.set(id, entry);
    for (const id of retained) state.retained.add(id);
  }
  return { sequence, state };
}

export const decodeSnapshot = (key: string, value: Uint8Array): Snapshot =>
  atOnce(decodingSnapshot(key, value));

function* inParts<T>(entries: Iterable<T>): Generator<T[]> {
  let part: T[] = [];
  for (const entry of entries) {
    if (part.push(entry) < LINE_ENTRIES) continue;
    yield part;
    part = [];
  }
  if (part.length > 0) yield part;
}

/** Folds one stored record; a record that cannot follow is reported with its place in the log. */
export function foldRecord(state: DurableState, key: string, record: DurableRecord): void {
  try {
    applyRecord(state, record);
  } catch (error) {
    throw storageError(`journal entry ${key} does not fit: ${(error as Error).message}`, { cause: error });
  }
}

function parse(key: string, body: Uint8Array): unknown {
  return parseText(key, Buffer.from(body.buffer, body.byteOffset, body.byteLength).toString("utf8"));
}

function parseText(key: string, text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw storageError(`journal entry ${key} is not readable JSON: the journal is damaged; ${AFTER_DAMAGE}`, {
      cause: error,
    });
  }
}
