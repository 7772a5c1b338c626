/**
 * Connections that may wait to be accepted. With Node's 511 a fleet that comes at once, as after a restart, overflows the
 * queue while the event loop does something else: the system drops the last step of their handshake, and peers that
 * think they are connected are reset seconds later.
 *
 * This reaches into grpc-js through a member that its types hide. A release without it keeps 511.
 */
import type * as grpc from "@grpc/grpc-js";
import type { ListenOptions, Server } from "node:net";

/** Linux takes the smaller of this and net.core.somaxconn, which is 4096 since 5.4. */
const BACKLOG = 4096;

interface Internals {
  createHttp2Server?: (credentials: unknown) => Server;
}

/** Call it before the server binds. */
export function lengthenBacklog(server: grpc.Server): void {
  const internals = server as unknown as Internals;
  const { createHttp2Server } = internals;
  if (typeof createHttp2Server !== "function") return;
  internals.createHttp2Server = (credentials) => {
    const listener = createHttp2Server.call(server, credentials);
    const listen = listener.listen.bind(listener);
    listener.listen = ((address: ListenOptions, onListening: () => void) =>
      listen({ ...address, backlog: BACKLOG }, onListening)) as Server["listen"];
    return listener;
  };
}
