/**
 * The AllReduce call as a learner makes it: gRPC over a connection of its own, so that a mebibyte on its way does not
 * stand before a heartbeat, and through Node's HTTP/2 rather than grpc-js, whose generic code copies every message
 * three times. The connection is kept from step to step and dialled again when it is gone.
 */
import { connect, constants, type ClientHttp2Session, type ClientHttp2Stream } from "node:http2";
import * as grpc from "@grpc/grpc-js";
import { CHUNK_BYTES } from "./channel-options.js";
import { asServiceError } from "./status.js";
import { readClientFiles, type Access } from "./tls.js";

const PATH = "/troupe.v1.LearnerService/AllReduce";

export interface GradientCallEvents {
  /** Throws to end the call. */
  bytes(data: Buffer): void;
  /** Once: undefined for status OK. */
  ended(error: Error | undefined): void;
}

export class GradientChannel {
  private session: ClientHttp2Session | undefined;

  constructor(
    /** host:port */
    private readonly address: string,
    private readonly access: Access,
  ) {}

  /** @throws {TroupeError} CONFIG when a TLS file cannot be used */
  call(timeoutMs: number, events: GradientCallEvents): GradientCall {
    const { token } = this.access;
    const stream = this.open().request({
      ":method": "POST",
      ":path": PATH,
      te: "trailers",
      "content-type": "application/grpc",
      "grpc-timeout": `${Math.ceil(timeoutMs)}m`,
      ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
    });
    return new GradientCall(stream, timeoutMs, events);
  }

  close(): void {
    this.session?.destroy();
    this.session = undefined;
  }

  private open(): ClientHttp2Session {
    if (this.session !== undefined && !this.session.closed && !this.session.destroyed) return this.session;
    const { tls } = this.access;
    const session = connect(`${tls === undefined ? "http" : "https"}://${this.address}`, {
      ...(tls === undefined ? {} : readClientFiles(tls)),
      settings: { initialWindowSize: CHUNK_BYTES, enablePush: false },
      // Counts what a stream was given to send against a limit of 10 MB otherwise.
      maxSessionMemory: Number.MAX_SAFE_INTEGER,
    });
    session.once("connect", () => session.setLocalWindowSize(CHUNK_BYTES));
    // Its calls report what happened.
    session.on("error", () => undefined);
    session.unref();
    this.session = session;
    return session;
  }
}

export class GradientCall {
  private status: grpc.StatusObject | undefined;
  private isOver = false;
  private readonly timer: NodeJS.Timeout;

  constructor(
    private readonly stream: ClientHttp2Stream,
    timeoutMs: number,
    private readonly events: GradientCallEvents,
  ) {
    // The server ends a call in time; it may be what is gone.
    this.timer = setTimeout(
      () => this.fail(grpc.status.DEADLINE_EXCEEDED, `no answer within ${timeoutMs / 1000}s`),
      timeoutMs,
    );
    const onHeaders = (headers: Record<string, unknown>) => (this.status ??= statusOf(headers));
    stream.on("response", onHeaders);
    stream.on("trailers", onHeaders);
    stream.on("data", (data: Buffer) => {
      if (this.isOver) return;
      try {
        events.bytes(data);
      } catch (error) {
        this.end(error as Error);
        this.stream.close(constants.NGHTTP2_CANCEL);
      }
    });
    stream.on("error", (error) => this.fail(grpc.status.UNAVAILABLE, error.message));
    stream.on("close", () => {
      const { status } = this;
      if (status === undefined) this.fail(grpc.status.UNAVAILABLE, "the connection was closed");
      else this.end(status.code === grpc.status.OK ? undefined : asServiceError(status));
    });
  }

  /** Sends the pieces one after another; `onSent`: the memory of the last one may be written to again. */
  write(pieces: readonly Uint8Array[], onSent?: () => void): void {
    if (this.stream.destroyed || this.stream.closed) return;
    this.stream.cork();
    for (const [i, piece] of pieces.entries())
      this.stream.write(piece, (error) => {
        if (!error && i === pieces.length - 1) onSent?.();
      });
    this.stream.uncork();
  }

  /** Nothing more is sent. */
  finish(): void {
    if (!this.stream.destroyed) this.stream.end();
  }

  /** Idempotent; harmless after the end. */
  cancel(): void {
    this.fail(grpc.status.CANCELLED, "cancelled");
  }

  private fail(code: grpc.status, details: string): void {
    if (this.isOver) return;
    this.end(asServiceError({ code, details, metadata: new grpc.Metadata() }));
    this.stream.close(constants.NGHTTP2_CANCEL);
  }

  private end(error: Error | undefined): void {
    if (this.isOver) return;
    this.isOver = true;
    clearTimeout(this.timer);
    this.events.ended(error);
  }
}

/** @returns undefined for the headers before the first message, which hold no status yet */
function statusOf(headers: Record<string, unknown>): grpc.StatusObject | undefined {
  const code = headers["grpc-status"];
  const http = headers[":status"];
  if (code === undefined && (http === undefined || Number(http) === 200)) return undefined;
  const metadata = new grpc.Metadata();
  for (const [name, value] of Object.entries(headers))
    if (name.startsWith("troupe-") && typeof value === "string") metadata.set(name, value);
  if (code === undefined)
    return { code: grpc.status.UNAVAILABLE, details: `HTTP status ${String(http)}`, metadata };
  return { code: Number(code), details: unescaped(headers["grpc-message"] as string | undefined), metadata };
}

function unescaped(message = ""): string {
  try {
    return decodeURI(message);
  } catch {
    return message;
  }
}
