/**
 * Where a reducer takes connections of the bulk channel. Whoever opens a step shows the secret of its generation,
 * which only the members have; until then a connection may send one small note and is closed if it does not.
 */
import { timingSafeEqual } from "node:crypto";
import { createServer as createTcpServer, type AddressInfo, type Server, type Socket } from "node:net";
import { createServer as createTlsServer } from "node:tls";
import { z } from "zod";
import { TroupeError, configError, describeError, errorCodeOf, protocolError } from "../shared/errors.js";
import { BulkConnection, TLS_OPTIONS, checkPayload, noteTarget } from "./bulk-connection.js";
import { FRAME, type Frame } from "./bulk-frame.js";
import type { Contribution, MemberPort, Reduction } from "./reduction.js";

/** How long a connection may take to say who it is. */
const OPEN_WITHIN_MS = 10_000;
/** A member of the next generation may be here before its reducer has heard of it. */
const EARLY_MS = 60_000;
const MAX_CONNECTIONS = 4096;
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
});
export type OpenNote = z.infer<typeof openSchema>;

export interface OpenGeneration {
  readonly reduction: Reduction;
  readonly secret: Buffer;
}

export interface BulkServerOptions {
  readonly host: string;
  readonly port: number;
  /** With TLS 1.3 under the generation's secret. */
  readonly isEncrypted: boolean;
}

export class BulkServer {
  private current: OpenGeneration | undefined;
  private readonly sockets = new Set<Socket>();
  private waiting: { readonly generation: number; readonly wake: () => void }[] = [];

  private constructor(private readonly server: Server) {
    server.maxConnections = MAX_CONNECTIONS;
  }

  /** @throws {TroupeError} CONFIG when it cannot listen there */
  static async listen({ host, port, isEncrypted }: BulkServerOptions): Promise<BulkServer> {
    const self: { bulk?: BulkServer } = {};
    const take = (socket: Socket) => self.bulk?.take(socket);
    const server = isEncrypted
      ? createTlsServer(
          { ...TLS_OPTIONS, pskCallback: (_, identity) => self.bulk?.keyOf(identity) ?? null },
          take,
        )
      : createTcpServer(take);
    await new Promise<void>((resolve, reject) => {
      server.once("error", (cause) =>
        reject(
          configError(
            `cannot listen on ${host}:${port} for the bulk channel; set cluster.bulkPort to another port, or 0 for a free one`,
            { cause },
          ),
        ),
      );
      server.listen(port, host, resolve);
    });
    server.on("error", () => undefined);
    server.unref();
    self.bulk = new BulkServer(server);
    return self.bulk;
  }

  get port(): number {
    return (this.server.address() as AddressInfo).port;
  }

  /** Members of this generation are let in from now on, those of others are not. */
  open(generation: OpenGeneration | undefined): void {
    this.current = generation;
    const { waiting } = this;
    this.waiting = [];
    for (const { wake } of waiting) wake();
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

  private take(socket: Socket): void {
    this.sockets.add(socket);
    socket.once("close", () => this.sockets.delete(socket));
    new MemberConnection(socket, (note) => this.admit(note));
  }

  private async admit(note: OpenNote): Promise<Reduction> {
    const deadlineMs = performance.now() + EARLY_MS;
    // Its reducer may still be busy with the step before.
    while (
      note.generation > (this.current?.reduction.options.generation ?? 0) &&
      performance.now() < deadlineMs
    ) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, deadlineMs - performance.now());
        const wake = () => {
          clearTimeout(timer);
          resolve();
        };
        this.waiting.push({ generation: note.generation, wake });
      });
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
  private readonly timer: NodeJS.Timeout;

  constructor(
    socket: Socket,
    private readonly admit: (note: OpenNote) => Promise<Reduction>,
  ) {
    this.connection = BulkConnection.accept(socket, {
      targetOf: (frame) => this.targetOf(frame),
      received: (frame, payload) => this.received(frame, payload),
      closed: (error) => {
        clearTimeout(this.timer);
        this.contribution?.lost(
          new TroupeError("UNREACHABLE", `its bulk connection ended: ${error.message}`),
        );
      },
    });
    this.timer = setTimeout(() => this.connection.destroy(), OPEN_WITHIN_MS);
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
    clearTimeout(this.timer);
    this.state = "opening";
    // Its buckets stay in the socket meanwhile.
    this.connection.pause();
    void this.admit(note)
      .then((reduction) => {
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
    if (this.state === "refused") return;
    this.state = "refused";
    this.contribution = undefined;
    // What it still sends stays unread: closing at once would make TCP throw the reason away.
    this.connection.pause();
    this.connection.sendNote(FRAME.refusal, { code: errorCodeOf(error), message: describeError(error) });
    setTimeout(() => this.connection.destroy(), REFUSED_MS).unref();
  }
}
