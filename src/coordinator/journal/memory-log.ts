/**
 * The log in memory: for tests, and for runs that asked for no durability. Values go through the real encoding, and
 * `crash` loses exactly what was not synced, so recovery from it means what it means on disk.
 */
import { emptyDurableState, type DurableRecord, type DurableState } from "../core/index.js";
import type { DurableLog, LogEntry } from "./durable-log.js";
import { decodeRecord, decodeSnapshot, encodeRecord, encodeSnapshot, foldRecord } from "./encoding.js";

export class MemoryLog implements DurableLog {
  private readonly payloads = new Map<string, Uint8Array>();
  private values: Uint8Array[] = [];
  private snapshot: Uint8Array | null = null;
  private snapshotSequence = 0;
  private readonly pending: LogEntry[] = [];

  /** Accepts entries without making them durable yet. */
  write(entries: readonly LogEntry[]): void {
    this.pending.push(...entries);
  }

  /** Makes everything written so far durable. */
  sync(): void {
    for (const { record, put = [], delete: deleted = [] } of this.pending) {
      this.values.push(encodeRecord(record));
      for (const { id, bytes } of put) this.payloads.set(id, bytes);
      for (const id of deleted) this.payloads.delete(id);
    }
    this.pending.length = 0;
  }

  /** Loses what was not synced. */
  crash(): void {
    this.pending.length = 0;
  }

  recoverNow(): DurableState {
    const state = this.snapshot === null ? emptyDurableState() : decodeSnapshot("s", this.snapshot).state;
    this.values.forEach((value, i) => {
      const key = `r${this.snapshotSequence + i + 1}`;
      foldRecord(state, key, decodeRecord(key, value));
    });
    return state;
  }

  compactNow(): void {
    const sequence = this.snapshotSequence + this.values.length;
    this.snapshot = encodeSnapshot({ sequence, state: this.recoverNow() });
    this.snapshotSequence = sequence;
    this.values = [];
  }

  readPayload(id: string): Uint8Array | undefined {
    return this.payloads.get(id);
  }

  async append(entries: readonly LogEntry[]): Promise<void> {
    this.write(entries);
    this.sync();
  }

  async recover(): Promise<DurableState> {
    return this.recoverNow();
  }

  async *records(): AsyncIterable<{ sequence: number; record: DurableRecord }> {
    for (const [i, value] of this.values.entries()) {
      const sequence = this.snapshotSequence + i + 1;
      yield { sequence, record: decodeRecord(`r${sequence}`, value) };
    }
  }

  async getPayload(id: string): Promise<Uint8Array | undefined> {
    return this.payloads.get(id);
  }

  async *payloadIds(): AsyncIterable<string> {
    yield* this.payloads.keys();
  }

  async compact(): Promise<void> {
    this.compactNow();
  }

  async close(): Promise<void> {}
}
