/** One TCP (or TLS) connection of the bulk channel: frames out, frames in, without a copy where Node allows it. */
import { connect as connectTcp, type OnReadOpts, type Socket } from "node:net";
import { connect as connectTls, type PSKCallbackNegotation } from "node:tls";
import { digestOf } from "../kernels/gradient-kernels.js";
import { TroupeError, protocolError } from "../shared/errors.js";
import {
  FrameReader,
  MAX_NOTE_BYTES,
  writeHeader,
  type FRAME,
  type Frame,
  type FrameSink,
} from "./bulk-frame.js";

/**
 * With TLS both ends prove that they know the generation's secret, which they have from the coordinator over TLS:
 * certificates would say nothing more. Forward secret (psk_dhe_ke).
 */
export const TLS_OPTIONS = {
  ciphers: "TLS_AES_128_GCM_SHA256",
  minVersion: "TLSv1.3",
} as const;

/** A silent peer is noticed by TCP itself; steps have their own deadlines. */
const KEEPALIVE_MS = 10_000;

export interface BulkAddress {
  readonly host: string;
  readonly port: number;
  /** Encrypts with this key, named by `identity`; plaintext without. */
  readonly key?: { readonly identity: string; readonly secret: Buffer };
}

export interface ConnectionEvents extends FrameSink {
  /** Once, whichever side ended it. */
  closed(error: Error): void;
}

export class BulkConnection {
  private readonly reader: FrameReader;
  private error: Error | undefined;
  private hasConnected = true;

  private constructor(
    private readonly socket: Socket,
    events: ConnectionEvents,
    reader: FrameReader,
  ) {
    this.reader = reader;
    socket.setNoDelay(true);
    socket.setKeepAlive(true, KEEPALIVE_MS);
    socket.on("error", (error) => (this.error ??= error));
    socket.on("close", () =>
      events.closed(this.error ?? new TroupeError("UNREACHABLE", "the bulk connection was closed")),
    );
  }

  /**
   * Connects; what is sent before that waits.
   * @param timeoutMs for the connection, its handshake included: an address behind a cut link answers nothing
   */
  static dial({ host, port, key }: BulkAddress, events: ConnectionEvents, timeoutMs: number): BulkConnection {
    const reader = new FrameReader(events);
    const connection: { current?: BulkConnection } = {};
    const onread: OnReadOpts = {
      buffer: () => reader.space,
      callback: (count) => {
        connection.current?.guard(() => reader.advance(count));
        return true;
      },
    };
    const socket =
      key === undefined
        ? connectTcp({ host, port, onread })
        : connectTls({
            ...TLS_OPTIONS,
            ...{ host, port, onread },
            pskCallback: (): PSKCallbackNegotation => ({ psk: key.secret, identity: key.identity }),
            checkServerIdentity: () => undefined, // it has the key
          } as never);
    const dialled = new BulkConnection(socket, events, reader);
    connection.current = dialled;
    dialled.hasConnected = false;
    const timer = setTimeout(
      () => dialled.destroy(new Error(`no connection within ${timeoutMs / 1000} s`)),
      timeoutMs,
    );
    socket.once("close", () => clearTimeout(timer));
    socket.once(key === undefined ? "connect" : "secureConnect", () => {
      clearTimeout(timer);
      dialled.hasConnected = true;
    });
    return dialled;
  }

  /** Whether there ever was a connection, handshake included. */
  get wasOpen(): boolean {
    return this.hasConnected;
  }

  /** @param socket accepted, and nothing read from it yet */
  static accept(socket: Socket, events: ConnectionEvents): BulkConnection {
    const reader = new FrameReader(events);
    const connection = new BulkConnection(socket, events, reader);
    const advance = (count: number) => connection.guard(() => reader.advance(count));
    if (!readInto(socket, () => reader.space, advance))
      socket.on("data", (bytes: Buffer) => connection.guard(() => reader.push(bytes)));
    socket.resume();
    return connection;
  }

  /** @param onSent `payload` may be written to again */
  send(
    kind: number,
    node: number,
    bucket: number,
    payload: Uint8Array,
    onSent?: () => void,
    checksum = digestOf(payload).checksum,
  ): void {
    this.socket.cork();
    this.socket.write(writeHeader({ kind, node, bucket, length: payload.length, checksum }));
    this.socket.write(payload, (error) => {
      if (!error) onSent?.();
    });
    this.socket.uncork();
  }

  sendNote(kind: typeof FRAME.open | typeof FRAME.refusal | typeof FRAME.heard, note: object): void {
    this.send(kind, 0, 0, Buffer.from(JSON.stringify(note)));
  }

  pause(): void {
    this.socket.pause();
  }

  resume(): void {
    this.socket.resume();
  }

  get isClosed(): boolean {
    return this.socket.destroyed;
  }

  destroy(error?: Error): void {
    this.error ??= error;
    this.socket.destroy();
  }

  private guard(act: () => void): void {
    try {
      if (!this.socket.destroyed) act();
    } catch (error) {
      this.destroy(error as Error);
    }
  }
}

/** @throws {TroupeError} PROTOCOL when the payload is not what was sent */
export function checkPayload({ kind, bucket, checksum }: Frame, payload: Uint8Array): void {
  if (digestOf(payload).checksum !== checksum)
    throw protocolError(`bulk frame ${kind}, bucket ${bucket}: damaged on the way (checksum differs)`);
}

/** Memory for a note. @throws {TroupeError} PROTOCOL when it is too large */
export function noteTarget({ length }: Frame): Uint8Array {
  if (length > MAX_NOTE_BYTES)
    throw protocolError(`bulk frame: expected at most ${MAX_NOTE_BYTES} bytes, got ${length}`);
  return Buffer.alloc(length);
}

/**
 * Makes an accepted socket read into our memory, as `onread` does for sockets that dial: three times the throughput
 * for a quarter of the CPU time of 64 KiB buffers. Node has no option for it, so this sets what its constructor sets.
 * @returns false when this release of Node has none of that; read "data" then
 */
function readInto(socket: Socket, space: () => Uint8Array, advance: (count: number) => void): boolean {
  const symbols = new Map(Object.getOwnPropertySymbols(socket).map((key) => [key.description, key]));
  const [buffer, generator, callback] = ["kBuffer", "kBufferGen", "kBufferCb"].map((name) =>
    symbols.get(name),
  );
  const internals = socket as unknown as {
    [key: symbol]: unknown;
    _handle?: { useUserBuffer?: (buffer: Uint8Array) => void };
  };
  const useUserBuffer = internals._handle?.useUserBuffer;
  if (!buffer || !generator || !callback || useUserBuffer === undefined) return false;
  internals[generator] = space;
  internals[buffer] = space();
  internals[callback] = (count: number) => {
    advance(count);
    return true;
  };
  useUserBuffer.call(internals._handle, internals[buffer] as Uint8Array);
  return true;
}
