/**
 * The one seam between the coordinator and its storage. An engine keeps an ordered log of records and a set of
 * payloads, and can fold a prefix of the log into a snapshot. Nothing here assumes one machine: a replicated log
 * (append = publish and wait for the quorum, payloads = object store, snapshot = compacted stream) fits the same shape.
 */
import type { DurableRecord, DurableState } from "../core/index.js";
import type { ExperienceId } from "../../rl/types.js";

export interface LogEntry {
  readonly record: DurableRecord;
  /** Payloads that become readable together with the record. */
  readonly put?: readonly { readonly id: ExperienceId; readonly bytes: Uint8Array }[];
  /** Payloads that are gone together with it. */
  readonly delete?: readonly ExperienceId[];
}

/** When a log folds itself. */
export interface CompactionOptions {
  /** Records after which the log is folded into a snapshot by itself. @default 10_000 */
  readonly compactEveryRecords?: number;
  /** Told of a snapshot that could not be written: nothing is lost, the log stays long and tries again as it grows. */
  readonly onCompactionFailed?: (error: unknown) => void;
}

const DEFAULT_COMPACT_EVERY_RECORDS = 10_000;
/** Records of so many bytes are folded as well, however few they are. */
const COMPACT_BYTES = 4 << 20;

/** What has gathered since the newest snapshot. */
export interface LogGrowth {
  readonly records: number;
  readonly recordBytes: number;
  readonly snapshotBytes: number;
}

/** A snapshot costs what the state is large; so that a record's share of it is bounded, the log must have grown by that. */
export function isWorthCompacting(
  { records, recordBytes, snapshotBytes }: LogGrowth,
  { compactEveryRecords = DEFAULT_COMPACT_EVERY_RECORDS }: CompactionOptions,
): boolean {
  const isLong = records >= compactEveryRecords || recordBytes >= COMPACT_BYTES;
  return isLong && recordBytes >= snapshotBytes;
}

export interface DurableLog {
  /**
   * Appends the entries atomically: after a crash all of them are there or none. Resolves once they would survive a
   * power cut. Calls may overlap; they take effect in call order.
   * @throws TroupeError STORAGE (disk full, permission, I/O); after that nothing more can be appended.
   */
  append(entries: readonly LogEntry[]): Promise<void>;
  /**
   * The durable state: newest snapshot, then every record after it.
   * @throws TroupeError STORAGE naming the entry, when one is damaged or missing.
   */
  recover(): Promise<DurableState>;
  /** The records after the newest snapshot, oldest first. */
  records(): AsyncIterable<{ readonly sequence: number; readonly record: DurableRecord }>;
  /** The payload of an admitted experience; undefined once it was deleted. */
  getPayload(id: ExperienceId): Promise<Uint8Array | undefined>;
  /** Ids of all stored payloads. */
  payloadIds(): AsyncIterable<ExperienceId>;
  /** Replaces the log so far by a snapshot that recovers to the same state. Also happens by itself as the log grows. */
  compact(): Promise<void>;
  /** Finishes what was appended and releases the storage. Safe to call twice. */
  close(): Promise<void>;
}
