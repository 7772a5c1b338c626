/**
 * How many connections a server holds: in total, and from one address. A connection costs memory before anybody has
 * said who they are, so this is decided when it is accepted, before TLS and before a token could be shown.
 *
 * This reaches into grpc-js through a member that its types hide. A release without it has no limit.
 */
import type * as grpc from "@grpc/grpc-js";
import type { Server, Socket } from "node:net";

export interface ConnectionLimits {
  /** From one IPv4 address, or one IPv6 network of 64 bits, which is what one host is given. */
  readonly perAddress: number;
  readonly total: number;
}

export interface RefusedConnection {
  readonly reason: "address" | "total";
  /** Of the other end, without its port. */
  readonly peer: string;
}

interface Internals {
  createHttp2Server?: (credentials: unknown) => Server;
}

export class ConnectionCap {
  private readonly byAddress = new Map<string, number>();
  private total = 0;

  constructor(
    private readonly limits: ConnectionLimits,
    private readonly onRefused: (refused: RefusedConnection) => void = () => undefined,
  ) {}

  /** Told how many are open now. */
  onChange: (open: number) => void = () => undefined;

  /** @returns whether the connection may stay; one that may not is closed */
  admit(socket: Pick<Socket, "remoteAddress" | "once" | "destroy">): boolean {
    const peer = socket.remoteAddress;
    if (peer === undefined) return true; // it is closed already
    const address = networkOf(peer);
    const before = this.byAddress.get(address) ?? 0;
    const { perAddress, total } = this.limits;
    if (this.total >= total || before >= perAddress) {
      socket.destroy();
      this.onRefused({ reason: this.total >= total ? "total" : "address", peer });
      return false;
    }
    this.byAddress.set(address, before + 1);
    this.onChange((this.total += 1));
    socket.once("close", () => {
      this.onChange((this.total -= 1));
      const left = (this.byAddress.get(address) ?? 1) - 1;
      if (left === 0) this.byAddress.delete(address);
      else this.byAddress.set(address, left);
    });
    return true;
  }
}

/**
 * Call it before the server binds.
 * @returns false when this release of grpc-js does not let itself be told
 */
export function capConnections(server: grpc.Server, cap: ConnectionCap): boolean {
  const internals = server as unknown as Internals;
  const { createHttp2Server } = internals;
  if (typeof createHttp2Server !== "function") return false;
  internals.createHttp2Server = (credentials) => {
    const listener = createHttp2Server.call(server, credentials);
    // In front of what is there, TLS included, which must not see a socket that is closed.
    const accept = listener.listeners("connection");
    listener.removeAllListeners("connection");
    return listener.on("connection", (socket: Socket) => {
      if (cap.admit(socket)) for (const one of accept) one.call(listener, socket);
    });
  };
  return true;
}

/** "::ffff:10.0.0.7" → "10.0.0.7", "2001:db8::1" → "2001:db8:0:0" */
export function networkOf(address: string): string {
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address);
  if (mapped !== null) return mapped[1];
  if (!address.includes(":")) return address;
  const [head, tail] = address.replace(/%.*$/, "").split("::");
  const groups = (part: string | undefined) => (part ? part.split(":") : []);
  const first = groups(head);
  if (tail === undefined) return first.slice(0, 4).join(":");
  const last = groups(tail);
  const zeros = new Array<string>(Math.max(0, 8 - first.length - last.length)).fill("0");
  return [...first, ...zeros, ...last].slice(0, 4).join(":");
}
