/**
 * The HTTP/2 stream below a call that grpc-js serves, for messages too large to be handled by its generic code: that
 * concatenates every message into fresh memory and copies every reply twice. Authentication, deadlines, status and
 * cancellation stay grpc-js's business.
 *
 * This reaches into grpc-js through members that its types hide. A release without them keeps the generic path:
 * slower, otherwise the same.
 */
import type * as grpc from "@grpc/grpc-js";
import type { ServerHttp2Stream } from "node:http2";

interface Decoder {
  write(data: Buffer): readonly Buffer[];
}

interface BaseCall {
  readonly stream?: ServerHttp2Stream;
  decoder?: Decoder;
  maybeSendMetadata?: () => void;
}

interface Intercepted {
  readonly nextCall?: Intercepted & BaseCall;
}

export interface ServerStream {
  /** Bytes of several pieces; `onSent`: the memory of the last one may be written to again. */
  write(head: Uint8Array, payload: Uint8Array, onSent: () => void): void;
  pause(): void;
  resume(): void;
}

/**
 * Takes over what a call receives, envelopes included. Call it in the handler, before anything was read.
 * @param onBytes must not throw
 * @returns undefined when this release of grpc-js does not let itself be told; the call is as it was then
 */
export function takeServerStream(
  call: grpc.ServerDuplexStream<unknown, unknown>,
  onBytes: (bytes: Buffer) => void,
): ServerStream | undefined {
  let base = (call as unknown as { readonly call?: Intercepted & BaseCall }).call;
  while (base?.nextCall !== undefined) base = base.nextCall;
  const stream = base?.stream;
  if (
    base === undefined ||
    typeof base.decoder?.write !== "function" ||
    typeof base.maybeSendMetadata !== "function" ||
    typeof stream?.write !== "function"
  )
    return undefined;
  base.decoder = {
    write(data) {
      onBytes(data);
      return [];
    },
  };
  const { maybeSendMetadata } = base;
  return {
    write(head, payload, onSent) {
      if (stream.destroyed || stream.closed) return;
      maybeSendMetadata.call(base);
      stream.cork();
      stream.write(head);
      stream.write(payload, (error) => {
        if (!error) onSent();
      });
      stream.uncork();
    },
    pause: () => void stream.pause(),
    resume: () => void stream.resume(),
  };
}
