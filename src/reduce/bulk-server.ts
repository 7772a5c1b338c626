/**
 * Where a reducer takes connections of the bulk channel. Whoever opens a step shows the secret of its generation,
 * which only the members have; until then a connection may send one small note and is closed if it does not.
 */
import { timingSafeEqual } from "node:crypto";
import { createServer as createTcpServer, type AddressInfo, type Server, type Socket } from "node:net";
import { createServer as createTlsServer } from "node:tls";
import { z } from "zod";
import { abortable, makeDeferred } from "../shared/abort.js";
import { TroupeError, configError, describeError, errorCodeOf, protocolError } from "../shared/errors.js";
import { BulkConnection, TLS_OPTIONS, checkPayload, noteTarget } from "./bulk-connection.js";
import { FRAME, type Frame } from "./bulk-frame.js";
import type { Contribution, MemberPort, Reduction } from "./reduction.js";

/**
 * How long a connection may take to be let in: to say who it is, and to wait for its generation. A member of the next one
 * may be here before its reducer has heard of it, which may still be busy with the step before; it then dials again.
 */
const ADMIT_WITHIN_MS = 10_000;
const MAX_CONNECTIONS = 4096;
/** Of one address, not let in yet: whoever has no secret cannot take the places of those who have. */
const MAX_STRANGERS = 256;
/** A refused member may be in the middle of sending; it gets this long to read why. */
const REFUSED_MS = 5_000;

const count = z.number().int().nonnegative();
const openSchema = z.strictObject({
  secret: z.string(),
  workerId: z.string(),
  generation: count,
  step: count,
  nodes: z.array(z.strictObject({ level: count, index: count })),
  elementCount: count,
  bucketElements: count,
  laterBuckets: count.default(0),
});
export type OpenNote = z.infer<typeof openSchema>;

export interface OpenGeneration {
  readonly reduction: Reduction;
  readonly secret: Buffer;
}

export interface BulkServerOptions {
  /** Undefined: all addresses of this machine, IPv6 or not. */
  readonly host: string | undefined;
  readonly port: number;
  /** With TLS 1.3 under the generation's secret. */
  readonly isEncrypted: boolean;
  /** @default 10 s */
  readonly admitWithinMs?: number;
}

export class BulkServer {
  private current: OpenGeneration | undefined;
  /** Handshakes that are under way included. */
  private readonly sockets = new Set<Socket>();
  /** By address, the ports of connections that were not let in yet. */
  private readonly strangers = new Map<string, Set<number>>();
  private readonly waiting = new Set<() => void>();

  private constructor(
    private readonly server: Server,
    private readonly admitWithinMs: number,
  ) {
    server.maxConnections = MAX_CONNECTIONS;
  }

  /** @throws {TroupeError} CONFIG when it cannot listen there */
  static async listen({
    host,
    port,
    isEncrypted,
    admitWithinMs = ADMIT_WITHIN_MS,
  }: BulkServerOptions): Promise<BulkServer> {
    const self: { bulk?: BulkServer } = {};
    const take = (socket: Socket) => self.bulk?.take(socket);
    const server = isEncrypted
      ? createTlsServer(
          {
            ...TLS_OPTIONS,
            handshakeTimeout: admitWithinMs,
            pskCallback: (_, identity) => self.bulk?.keyOf(identity) ?? null,
          },
          take,
        )
      : createTcpServer(take);
    // Before the handshake, and before `take` of plain connections.
    server.prependListener("connection", (socket: Socket) => self.bulk?.count(socket));
    server.on("tlsClientError", (_error: Error, socket: Socket) => socket.destroy());
    await new Promise<void>((resolve, reject) => {
      server.once("error", (cause) =>
        reject(
          configError(
            `cannot listen on ${host ?? "any address"}:${port} for the bulk channel; set cluster.bulkPort to another port, or 0 for a free one`,
            { cause },
          ),
        ),
      );
      server.listen({ port, host }, resolve);
    });
    server.on("error", () => undefined);
    server.unref();
    self.bulk = new BulkServer(server, admitWithinMs);
    return self.bulk;
  }

  get port(): number {
    return (this.server.address() as AddressInfo).port;
  }

  /** Members of this generation are let in from now on, those of others are not. */
  open(generation: OpenGeneration | undefined): void {
    this.current = generation;
    for (const wake of this.waiting) wake();
    this.waiting.clear();
  }

  close(): void {
    this.open(undefined);
    for (const socket of this.sockets) socket.destroy();
    this.server.close();
  }

  private keyOf(identity: string): Buffer | undefined {
    const { current } = this;
    return identity === String(current?.reduction.options.generation) ? current?.secret : undefined;
  }

  /** Every connection, from its first moment; one too many of an address is closed. */
  private count(socket: Socket): void {
    const { remoteAddress = "", remotePort = 0 } = socket;
    const ports = this.strangers.get(remoteAddress) ?? new Set();
    if (ports.size >= MAX_STRANGERS) return void socket.destroy();
    this.strangers.set(remoteAddress, ports.add(remotePort));
    this.sockets.add(socket);
    socket.once("close", () => {
      this.sockets.delete(socket);
      this.noteKnown(remoteAddress, remotePort);
    });
  }

  /** Let in, or gone. */
  private noteKnown(address: string, port: number): void {
    const ports = this.strangers.get(address);
    ports?.delete(port);
    if (ports?.size === 0) this.strangers.delete(address);
  }

  private take(socket: Socket): void {
    const { remoteAddress = "", remotePort = 0 } = socket;
    if (socket.destroyed) return;
    new MemberConnection(socket, this.admitWithinMs, async (note, signal) => {
      const reduction = await this.admit(note, signal);
      this.noteKnown(remoteAddress, remotePort);
      return reduction;
    });
  }

  private async admit(note: OpenNote, signal: AbortSignal): Promise<Reduction> {
    // Its reducer may still be busy with the step before.
    while (note.generation > (this.current?.reduction.options.generation ?? 0)) {
      const woken = makeDeferred<void>();
      this.waiting.add(woken.resolve);
      await abortable(woken.promise, signal).finally(() => this.waiting.delete(woken.resolve));
    }
    const { current } = this;
    const { generation, step } = note;
    if (current?.reduction.options.generation !== generation || current.reduction.options.step !== step)
      throw new TroupeError("CANCELLED", `all-reduce of generation ${generation}, step ${step} is not open`);
    const shown = Buffer.from(note.secret, "hex");
    if (shown.length !== current.secret.length || !timingSafeEqual(shown, current.secret))
      throw new TroupeError("AUTH", `bulk channel: wrong secret for generation ${generation}`);
    return current.reduction;
  }
}

/** One member's connection; it serves one step after another. */
class MemberConnection {
  private readonly connection: BulkConnection;
  private contribution: Contribution | undefined;
  private state: "idle" | "opening" | "open" | "refused" = "idle";
  private isKnown = false;
  /** Until it is let in. */
  private timer: NodeJS.Timeout;
  private readonly gone = new AbortController();

  constructor(
    socket: Socket,
    private readonly admitWithinMs: number,
    private readonly admit: (note: OpenNote, signal: AbortSignal) => Promise<Reduction>,
  ) {
    this.connection = BulkConnection.accept(socket, {
      targetOf: (frame) => this.targetOf(frame),
      received: (frame, payload) => this.received(frame, payload),
      closed: (error) => {
        clearTimeout(this.timer);
        this.gone.abort();
        this.contribution?.lost(
          new TroupeError("UNREACHABLE", `its bulk connection ended: ${error.message}`),
        );
      },
    });
    this.timer = this.limit();
  }

  private limit(): NodeJS.Timeout {
    return setTimeout(() => this.connection.destroy(), this.admitWithinMs);
  }

  private targetOf(frame: Frame): Uint8Array {
    const { kind, node, bucket, length } = frame;
    if (kind === FRAME.open && this.state === "idle") return noteTarget(frame);
    if (kind !== FRAME.bucket || this.state !== "open" || this.contribution === undefined)
      throw protocolError(
        `bulk frame: expected ${this.state === "open" ? "a bucket" : "an opening"}, got kind ${kind}`,
      );
    const { pool, bytesOf } = this.contribution;
    const expected = bytesOf(node, bucket);
    if (length !== expected)
      throw protocolError(`bulk frame of bucket ${bucket}: expected ${expected} bytes, got ${length}`);
    return pool.take(length);
  }

  private received(frame: Frame, payload: Uint8Array): void {
    try {
      checkPayload(frame, payload);
      if (frame.kind === FRAME.open)
        this.begin(openSchema.parse(JSON.parse(Buffer.from(payload).toString())));
      else this.contribution?.add(frame.node, frame.bucket, payload);
    } catch (error) {
      this.contribution?.lost(error);
      throw error;
    }
  }

  private begin(note: OpenNote): void {
    // The first time it runs already.
    if (this.isKnown) this.timer = this.limit();
    this.state = "opening";
    this.connection.sendNote(FRAME.heard, {});
    // Its buckets stay in the socket meanwhile.
    this.connection.pause();
    void this.admit(note, this.gone.signal)
      .then((reduction) => {
        clearTimeout(this.timer);
        this.isKnown = true;
        if (this.connection.isClosed) return;
        this.contribution = reduction.join(note.workerId, note, this.port());
        this.state = "open";
        this.connection.resume();
      })
      .catch((error: unknown) => this.refuse(error));
  }

  private port(): MemberPort {
    const { connection } = this;
    return {
      send: (bucket, total, onSent, checksum) =>
        connection.send(FRAME.total, 0, bucket, total, onSent, checksum()),
      pause: () => connection.pause(),
      resume: () => connection.resume(),
      finish: () => {
        this.contribution = undefined;
        this.state = "idle";
      },
      fail: (error) => this.refuse(error),
    };
  }

  private refuse(error: unknown): void {
    if (this.state === "refused" || this.connection.isClosed) return;
    clearTimeout(this.timer);
    this.state = "refused";
    this.contribution = undefined;
    // What it still sends stays unread: closing at once would make TCP throw the reason away.
    this.connection.pause();
    this.connection.sendNote(FRAME.refusal, { code: errorCodeOf(error), message: describeError(error) });
    setTimeout(() => this.connection.destroy(), REFUSED_MS).unref();
  }
}
