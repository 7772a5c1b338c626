/**
 * Finished experiences on their way up: gathered into messages large enough that framing costs little, and held back
 * while too many bytes are unacknowledged. So a worker that is faster than the coordinator's disk waits here, and what
 * the coordinator may have to hold of it is bounded whatever the stream between them buffers.
 *
 * It outlives streams: what a broken one left unacknowledged, and what was finished meanwhile, is offered on the next.
 */
import { makeDeferred, type Deferred } from "../shared/abort.js";

/** A message is sent once it holds this much. */
const BATCH_BYTES = 256 << 10;
/** Sent and not acknowledged; a single experience may be larger. */
const WINDOW_BYTES = 4 << 20;

/** Sends one message; resolves when the stream takes more. */
type Send = (experiences: Buffer[]) => Promise<void>;

interface Held {
  readonly bytes: Buffer;
  /** Offered again, it may wait until the coordinator asks for it: it takes no room from what was asked for since. */
  readonly isCounted: boolean;
}

export class ExperienceUplink {
  private send: Send | undefined;
  private batch: Buffer[] = [];
  private batchBytes = 0;
  /** By experience id, what was not acknowledged yet; a redelivered task may send an id again. */
  private readonly unacknowledged = new Map<string, Held>();
  private countedBytes = 0;
  private room: Deferred<void> | undefined;

  constructor(private readonly limits = { batchBytes: BATCH_BYTES, windowBytes: WINDOW_BYTES }) {}

  /** A stream is there: offers what is left of those before it. */
  async attach(send: Send): Promise<void> {
    this.detach();
    this.send = send;
    const held = [...this.unacknowledged];
    this.countedBytes = 0;
    for (const [id, { bytes }] of held) this.unacknowledged.set(id, { bytes, isCounted: false });
    for (const [, { bytes }] of held) await this.gather(bytes);
    await this.flush();
  }

  /** The stream is gone: nobody waits for room any more. */
  detach(): void {
    this.send = undefined;
    this.batch = [];
    this.batchBytes = 0;
    this.makeRoom();
  }

  /** Nothing of what is held is wanted any more. */
  clear(): void {
    this.batch = [];
    this.batchBytes = 0;
    this.unacknowledged.clear();
    this.countedBytes = 0;
    this.makeRoom();
  }

  /** Takes one serialised experience; resolves when there is room for it, at once without a stream. */
  async push(experienceId: string, bytes: Buffer): Promise<void> {
    const isFull = () =>
      this.send !== undefined &&
      this.countedBytes > 0 &&
      this.countedBytes + bytes.length > this.limits.windowBytes;
    while (isFull()) {
      await this.flush(); // what was not sent is never acknowledged
      if (!isFull()) break;
      this.room ??= makeDeferred<void>();
      await this.room.promise;
    }
    this.release(experienceId);
    this.unacknowledged.set(experienceId, { bytes, isCounted: true });
    this.countedBytes += bytes.length;
    if (this.send !== undefined) await this.gather(bytes);
  }

  /** Sends what has gathered. */
  async flush(): Promise<void> {
    const { batch, send } = this;
    if (batch.length === 0 || send === undefined) return;
    this.batch = [];
    this.batchBytes = 0;
    await send(batch);
  }

  /** These were decided on: durable, or refused for good. */
  acknowledge(experienceIds: readonly string[]): void {
    for (const id of experienceIds) this.release(id);
    this.makeRoom();
  }

  private async gather(bytes: Buffer): Promise<void> {
    this.batch.push(bytes);
    this.batchBytes += bytes.length;
    if (this.batchBytes >= this.limits.batchBytes) await this.flush();
  }

  private release(experienceId: string): void {
    const held = this.unacknowledged.get(experienceId);
    if (held?.isCounted) this.countedBytes -= held.bytes.length;
    this.unacknowledged.delete(experienceId);
  }

  private makeRoom(): void {
    this.room?.resolve();
    this.room = undefined;
  }
}
