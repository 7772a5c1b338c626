/**
 * The journal that outlives coordinators, with the product's encoding and recovery. One process at a time owns it: whoever
 * opens it takes it over, and what an earlier owner still appends is refused.
 */
import type { DurableState, JournalEffect } from "../coordinator/core/index.js";
import { MemoryLog } from "../coordinator/journal/memory-log.js";
import type { World } from "./world.js";

export interface JournalBatch {
  readonly records: readonly JournalEffect[];
  /** What the experiences of the event hold, by id. */
  readonly contents: ReadonlyMap<string, number> | undefined;
}

/** Nothing was acknowledged, and nothing more may be appended; whether the records are there is not known. */
export class AppendRefused extends Error {}

/** Appends that the planted bug "no-fsync" leaves with the operating system. */
const UNSYNCED_APPENDS = 4;

export class SimJournal {
  /** Payloads, by id. */
  readonly contents = new Map<string, number>();
  /** Number of the process that opened it last. */
  owner = 0;
  private readonly log = new MemoryLog();
  private written: JournalEffect[] = [];
  private unsyncedAppends = 0;
  private recordsSinceSnapshot = 0;
  private failing: "lost" | "kept" | null = null;

  constructor(private readonly world: World) {}

  open(): { readonly owner: number; readonly durable: DurableState } {
    this.owner += 1;
    this.failing = null;
    return { owner: this.owner, durable: this.log.recoverNow() };
  }

  /** The next append fails; its records are lost, or there nevertheless. */
  failNext(how: "lost" | "kept"): void {
    this.failing = how;
  }

  /** @throws AppendRefused */
  append(owner: number, epoch: number, batches: readonly JournalBatch[]): void {
    const { planted, history } = this.world;
    if (owner !== this.owner && planted !== "two-writers") throw this.refuse(owner, "replaced");
    const { failing } = this;
    this.failing = null;
    if (failing === "lost") throw this.refuse(owner, "failed");
    for (const { records, contents } of batches) {
      this.log.write(records.map(({ record }) => ({ record })));
      this.written.push(...records);
      for (const { putPayloads = [], deletePayloads = [] } of records) {
        for (const id of putPayloads) {
          this.contents.set(id, contents!.get(id)!);
          history.contents.set(id, contents!.get(id)!);
        }
        for (const id of deletePayloads) this.contents.delete(id);
      }
    }
    history.entries.push({ type: "appended", owner, epoch });
    if (planted !== "no-fsync" || ++this.unsyncedAppends > UNSYNCED_APPENDS) this.sync();
    if (failing === "kept") throw this.refuse(owner, "failed");
  }

  /** Loses what is not on the disk. */
  crash(): void {
    this.log.crash();
    this.written = [];
  }

  private refuse(owner: number, why: "replaced" | "failed"): AppendRefused {
    this.world.history.entries.push({ type: "refused", owner, why });
    return new AppendRefused(why);
  }

  private sync(): void {
    const { history, scenario } = this.world;
    this.log.sync();
    this.unsyncedAppends = 0;
    for (const { record } of this.written) history.records.push(record);
    this.recordsSinceSnapshot += this.written.length;
    this.written = [];
    if (scenario.compactEvery === 0 || this.recordsSinceSnapshot < scenario.compactEvery) return;
    this.recordsSinceSnapshot = 0;
    this.log.compactNow();
  }
}
