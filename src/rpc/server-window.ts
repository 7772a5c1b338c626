/**
 * The HTTP/2 flow-control window of a server. grpc-js has an option for clients only, and the default of 64 KiB costs a
 * wake-up of both ends per 64 KiB: uploads in pieces of 1 MiB are 4.5 times slower with it.
 *
 * This reaches into grpc-js through members that its types hide. A release without them keeps the default window:
 * slower, otherwise the same.
 */
import type * as grpc from "@grpc/grpc-js";
import type { Http2Server, ServerHttp2Session } from "node:http2";

interface Internals {
  readonly commonServerOptions?: { settings?: { initialWindowSize?: number } };
  createHttp2Server?: (credentials: unknown) => Http2Server;
}

/**
 * Call it before the server binds.
 * @param bytes window of every stream; a connection's is as large
 * @returns false when this release of grpc-js does not let itself be told
 */
export function widenServerWindow(server: grpc.Server, bytes: number): boolean {
  const internals = server as unknown as Internals;
  const { commonServerOptions, createHttp2Server } = internals;
  if (typeof commonServerOptions !== "object" || typeof createHttp2Server !== "function") return false;
  commonServerOptions.settings = { ...commonServerOptions.settings, initialWindowSize: bytes };
  internals.createHttp2Server = (credentials) =>
    createHttp2Server
      .call(server, credentials)
      .on("session", (session: ServerHttp2Session) => session.setLocalWindowSize(bytes));
  return true;
}
