/** A learner's connections to reducers: dialled when first needed, kept from step to step, dropped when a step fails. */
import { z } from "zod";
import { BulkConnection, checkPayload, noteTarget, type BulkAddress } from "../reduce/bulk-connection.js";
import { FRAME, type Frame } from "../reduce/bulk-frame.js";
import type { OpenNote } from "../reduce/bulk-server.js";
import { SlotPool } from "../reduce/slot-pool.js";
import { encodeBf16 } from "../kernels/gradient-kernels.js";
import { toColumn } from "../rpc/codec/columns.js";
import type { WireFormat } from "../rpc/codec/gradient.js";
import { cancelled, makeDeferred, sleep, type Deferred } from "../shared/abort.js";
import { TroupeError, asErrorCode, errorCodeOf, protocolError } from "../shared/errors.js";
import type { TotalGradient } from "./total-gradient.js";

/** Buckets handed to the socket and not sent yet. */
const IN_FLIGHT = 4;

/** For a connection to a reducer; much less than a step, so that the step can be done another way. */
const DIAL_TIMEOUT_MS = 10_000;
const REDIAL_MS = 200;
/** Whoever keeps a connection for longer, without a word, has nothing against it. */
const HELD_MS = 1_000;

const refusalSchema = z.object({ code: z.string(), message: z.string() });

/** What one reducer gets and gives: a contiguous part of the vector, in buckets of its own numbering. */
export interface Part {
  readonly open: OpenNote;
  /** This part of every node, in the order announced. */
  readonly nodes: readonly Float32Array[];
  readonly bucketElements: number;
  /** Number, in the whole gradient, of the part's first bucket. */
  readonly firstBucket: number;
  readonly bucketCount: number;
  readonly total: TotalGradient;
  /** Resolves when `open.laterBuckets`, the last ones, are final. */
  readonly rest: Promise<unknown>;
}

export interface BulkLinkOptions {
  readonly wire: WireFormat;
  readonly onBytes: (direction: "in" | "out", bytes: number) => void;
  /** @default 10 s */
  readonly dialTimeoutMs?: number;
}

export class BulkLink {
  private readonly connections = new Map<string, ReducerConnection>();

  constructor(private readonly options: BulkLinkOptions) {}

  /**
   * Dials again for as long as nothing was received: a reducer that is still busy with the step before closes what it
   * cannot let in yet, and says nothing.
   * @throws {TroupeError} UNREACHABLE when nobody answers there, or the connection breaks; PROTOCOL, or what the reducer
   *   refused it with. The connection is gone then
   */
  async exchange(address: BulkAddress, part: Part, signal: AbortSignal): Promise<void> {
    const name = `${address.host}:${address.port}`;
    const { dialTimeoutMs = DIAL_TIMEOUT_MS } = this.options;
    let giveUpMs = performance.now() + dialTimeoutMs;
    for (;;) {
      let connection = this.connections.get(name);
      if (connection === undefined || connection.isClosed) {
        connection = new ReducerConnection(
          address,
          this.options,
          Math.max(1, giveUpMs - performance.now()),
          dialTimeoutMs,
        );
        this.connections.set(name, connection);
      }
      const dialledMs = performance.now();
      try {
        return await connection.run(part, signal);
      } catch (error) {
        if (signal.aborted) throw cancelled(signal);
        if (connection.hasReceived || errorCodeOf(error) !== "UNREACHABLE") throw error;
        const nowMs = performance.now();
        if (connection.wasOpen && nowMs - dialledMs > HELD_MS) giveUpMs = nowMs + dialTimeoutMs;
        else if (nowMs + REDIAL_MS >= giveUpMs) throw error;
      }
      await sleep(REDIAL_MS, signal);
      if (signal.aborted) throw cancelled(signal);
    }
  }

  close(): void {
    for (const connection of this.connections.values()) connection.close();
    this.connections.clear();
  }
}

class ReducerConnection {
  private readonly connection: BulkConnection;
  private part: Part | undefined;
  private received = 0;
  private done: Deferred<void> = makeDeferred();
  /** Wakes the sender, which waits for the socket. */
  private hasRoom: (() => void) | undefined;
  private readonly halves: SlotPool;
  /** Until the reducer says that it has read the opening: a link can be cut under an open connection. */
  private hearing: NodeJS.Timeout | undefined;

  constructor(
    private readonly address: BulkAddress,
    private readonly options: BulkLinkOptions,
    dialTimeoutMs: number,
    private readonly hearWithinMs: number,
  ) {
    this.halves = new SlotPool(HALF_BUCKET_BYTES, 2 * IN_FLIGHT);
    const events = {
      targetOf: (frame: Frame) => this.targetOf(frame),
      received: (frame: Frame, payload: Uint8Array) => this.take(frame, payload),
      closed: (error: Error) => {
        this.done.reject(this.explained(error));
        this.hasRoom?.();
      },
    };
    this.connection = BulkConnection.dial(address, events, dialTimeoutMs);
  }

  get wasOpen(): boolean {
    return this.connection.wasOpen;
  }

  /** Part of a total came: the reducer has let it in, and what was to be sent may be overwritten. */
  hasReceived = false;

  get isClosed(): boolean {
    return this.connection.isClosed;
  }

  close(): void {
    this.connection.destroy();
  }

  async run(part: Part, signal: AbortSignal): Promise<void> {
    this.part = part;
    this.received = 0;
    this.hasReceived = false;
    this.done = makeDeferred();
    const cancel = () => this.connection.destroy();
    signal.addEventListener("abort", cancel, { once: true });
    try {
      await Promise.all([this.done.promise, this.send(part)]);
    } catch (error) {
      this.connection.destroy();
      throw error;
    } finally {
      clearTimeout(this.hearing);
      this.part = undefined;
      signal.removeEventListener("abort", cancel);
    }
  }

  private async send({ open, nodes, bucketElements, bucketCount, rest }: Part): Promise<void> {
    const { connection, options } = this;
    connection.sendNote(FRAME.open, open);
    this.hearing = setTimeout(
      () => connection.destroy(new Error(`no answer within ${this.hearWithinMs / 1000} s`)),
      this.hearWithinMs,
    );
    let inFlight = 0;
    for (let bucket = 0; bucket < bucketCount; bucket++) {
      if (bucket === bucketCount - open.laterBuckets) await rest;
      if (connection.isClosed) return; // `done` says why
      for (const [node, values] of nodes.entries()) {
        const payload = this.encode(values.subarray(bucket * bucketElements, (bucket + 1) * bucketElements));
        options.onBytes("out", payload.byteLength);
        inFlight += 1;
        connection.send(FRAME.bucket, node, bucket, payload, () => {
          if (options.wire === "bf16") this.halves.give(payload);
          inFlight -= 1;
          this.hasRoom?.();
        });
        // No race against the part's end: every turn of it would leave a listener there.
        while (inFlight >= IN_FLIGHT && !connection.isClosed)
          await new Promise<void>((resolve) => (this.hasRoom = resolve));
        if (connection.isClosed) return;
      }
    }
  }

  private encode(values: Float32Array): Uint8Array {
    if (this.options.wire === "f32") return toColumn(values);
    const bytes = this.halves.take(2 * values.length);
    encodeBf16(values, bytes);
    return bytes;
  }

  private targetOf(frame: Frame): Uint8Array {
    if (frame.kind === FRAME.refusal || frame.kind === FRAME.heard) return noteTarget(frame);
    const { part } = this;
    if (frame.kind !== FRAME.total || part === undefined)
      throw protocolError(`bulk frame: expected a total, got kind ${frame.kind}`);
    const target = part.total.targetOf(part.firstBucket + frame.bucket);
    this.hasReceived = true;
    return this.options.wire === "f32" ? toColumn(target) : this.halves.take(2 * target.length);
  }

  private take(frame: Frame, payload: Uint8Array): void {
    clearTimeout(this.hearing);
    if (frame.kind === FRAME.heard) return checkPayload(frame, payload);
    if (frame.kind === FRAME.refusal) {
      checkPayload(frame, payload);
      const { code, message } = refusalSchema.parse(JSON.parse(Buffer.from(payload).toString()));
      throw new TroupeError(asErrorCode(code), message);
    }
    const part = this.part as Part;
    const bucket = part.firstBucket + frame.bucket;
    this.options.onBytes("in", payload.byteLength);
    if (this.options.wire === "f32") {
      if (part.total.note(bucket, part.total.targetOf(bucket)) !== frame.checksum)
        throw protocolError(`total of bucket ${bucket}: damaged on the way (checksum differs)`);
    } else {
      checkPayload(frame, payload);
      part.total.accept(bucket, payload);
      this.halves.give(payload);
    }
    this.received += 1;
    if (this.received === part.bucketCount) this.done.resolve();
  }

  private explained(error: Error): TroupeError {
    if (error instanceof TroupeError) return error;
    const { host, port } = this.address;
    return new TroupeError("UNREACHABLE", `bulk channel to ${host}:${port}: ${error.message}`, {
      cause: error,
    });
  }
}

/** Of 1 MiB of float32 as bfloat16. */
const HALF_BUCKET_BYTES = 512 << 10;
