/**
 * Finished experiences on their way up: gathered into messages large enough that framing costs little, and held back
 * while too many bytes are unacknowledged. So a worker that is faster than the coordinator's disk waits here, and what
 * the coordinator may have to hold of it is bounded whatever the stream between them buffers.
 */
import { makeDeferred, type Deferred } from "../shared/abort.js";

/** A message is sent once it holds this much. */
const BATCH_BYTES = 256 << 10;
/** Sent and not acknowledged; a single experience may be larger. */
const WINDOW_BYTES = 4 << 20;

export class ExperienceUplink {
  private batch: Buffer[] = [];
  private batchBytes = 0;
  /** Bytes by experience id, of those not acknowledged yet; a redelivered task may send an id again. */
  private readonly unacknowledged = new Map<string, number>();
  private unacknowledgedBytes = 0;
  private room: Deferred<void> | undefined;
  private isClosed = false;

  /** @param send one message; resolves when the stream takes more */
  constructor(
    private readonly send: (experiences: Buffer[]) => Promise<void>,
    private readonly limits = { batchBytes: BATCH_BYTES, windowBytes: WINDOW_BYTES },
  ) {}

  /** Takes one serialised experience; resolves when there is room for it. */
  async push(experienceId: string, bytes: Buffer): Promise<void> {
    const isFull = () =>
      this.unacknowledgedBytes > 0 && this.unacknowledgedBytes + bytes.length > this.limits.windowBytes;
    while (isFull() && !this.isClosed) {
      await this.flush(); // what was not sent is never acknowledged
      if (!isFull() || this.isClosed) break;
      this.room ??= makeDeferred<void>();
      await this.room.promise;
    }
    this.unacknowledgedBytes += bytes.length - (this.unacknowledged.get(experienceId) ?? 0);
    this.unacknowledged.set(experienceId, bytes.length);
    this.batch.push(bytes);
    this.batchBytes += bytes.length;
    if (this.batchBytes >= this.limits.batchBytes) await this.flush();
  }

  /** Sends what has gathered. */
  async flush(): Promise<void> {
    const { batch } = this;
    if (batch.length === 0) return;
    this.batch = [];
    this.batchBytes = 0;
    await this.send(batch);
  }

  /** These were decided on: durable, or refused for good. */
  acknowledge(experienceIds: readonly string[]): void {
    for (const id of experienceIds) {
      this.unacknowledgedBytes -= this.unacknowledged.get(id) ?? 0;
      this.unacknowledged.delete(id);
    }
    this.room?.resolve();
    this.room = undefined;
  }

  /** The stream is gone: nobody waits for room any more. */
  close(): void {
    this.isClosed = true;
    this.room?.resolve();
    this.room = undefined;
  }
}
