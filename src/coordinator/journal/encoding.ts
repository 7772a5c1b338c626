/**
 * Bytes of a journal value: `[version u8][crc32 u32 little-endian][body]`. Records and snapshots are JSON, payloads
 * are the experience's own bytes. The checksum covers the body; the version is that of this layout.
 */
import { crc32 } from "node:zlib";
import { applyRecord, emptyDurableState, type DurableRecord, type DurableState } from "../core/index.js";
import { storageError } from "../../shared/errors.js";

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
      `journal entry ${key} is damaged (checksum differs, ${value.length} bytes): resume from the last checkpoint in a new run directory`,
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

export function encodeSnapshot({ sequence, state }: Snapshot): Uint8Array {
  const { collections, experiences, retained, ...plain } = state;
  const body = {
    sequence,
    ...plain,
    collections: [...collections.values()],
    experiences: [...experiences],
    retained: [...retained],
  };
  return frame(Buffer.from(JSON.stringify(body)));
}

export function decodeSnapshot(key: string, value: Uint8Array): Snapshot {
  type Stored = Omit<DurableState, "collections" | "experiences" | "retained"> & {
    sequence: number;
    collections: { iteration: number; policyVersion: number; tasks: [] }[];
    experiences: [string, never][];
    retained: string[];
  };
  const { sequence, collections, experiences, retained, ...plain } = parse(
    key,
    unframe(key, value),
  ) as Stored;
  const empty = emptyDurableState();
  return {
    sequence,
    state: {
      ...empty,
      ...plain,
      // Written before there was a count, a snapshot lacks it.
      counts: { ...empty.counts, ...plain.counts },
      collections: new Map(collections.map((collection) => [collection.iteration, collection])),
      experiences: new Map(experiences),
      retained: new Set(retained),
    },
  };
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
  try {
    return JSON.parse(Buffer.from(body.buffer, body.byteOffset, body.byteLength).toString("utf8"));
  } catch (error) {
    throw storageError(`journal entry ${key} is not readable JSON: the journal is damaged`, { cause: error });
  }
}
