/** The open stream of every worker of one role; a newer incarnation replaces an older one. */
import type * as grpc from "@grpc/grpc-js";
import { TroupeError } from "../shared/errors.js";
import { toServiceError } from "../rpc/status.js";
import type { FenceWorker } from "./core/index.js";

/** How long a registered worker may take to open its stream. */
export const STREAM_PATIENCE_MS = 10_000;

/**
 * Whether a stream may still be written to. One that was ended or refused goes on receiving for a moment; a write after
 * that would destroy it before its status is sent, and its peer would wait forever.
 */
export const isOpen = (call: { destroyed: boolean; cancelled: boolean; writableEnded: boolean }): boolean =>
  !call.destroyed && !call.cancelled && !call.writableEnded;

interface Entry<D> {
  readonly incarnation: number;
  readonly call: grpc.ServerDuplexStream<unknown, D>;
}

export class StreamRegistry<D> {
  private readonly streams = new Map<string, Entry<D>>();
  private readonly waiting = new Set<() => void>();

  bind(workerId: string, incarnation: number, call: grpc.ServerDuplexStream<unknown, D>): void {
    const before = this.streams.get(workerId);
    if (before !== undefined && before.incarnation > incarnation) {
      throw new TroupeError("FENCED", `${workerId}: a newer process with this name is registered`);
    }
    this.streams.set(workerId, { incarnation, call });
    if (before !== undefined && before.call !== call) before.call.end();
    for (const wake of this.waiting) wake();
  }

  /** Waits for the stream of a worker that has just registered: registration and stream are two calls. @returns whether it came */
  async whenBound(workerId: string, incarnation: number, patienceMs: number): Promise<boolean> {
    const deadlineMs = performance.now() + patienceMs;
    for (;;) {
      if (this.isBound(workerId, incarnation)) return true;
      const leftMs = deadlineMs - performance.now();
      if (leftMs <= 0) return false;
      await new Promise<void>((resolve) => {
        const timer = setTimeout(wake, leftMs);
        const { waiting } = this;
        function wake() {
          clearTimeout(timer);
          waiting.delete(wake);
          resolve();
        }
        waiting.add(wake);
      });
    }
  }

  /** Sends if the stream is there; a worker that is gone is found out by the core. @returns whether it was sent */
  send(workerId: string, directive: D): boolean {
    const entry = this.streams.get(workerId);
    if (entry === undefined || !isOpen(entry.call)) return false;
    entry.call.write(directive);
    return true;
  }

  /**
   * Sends to exactly this incarnation; resolves when the connection has taken the message, so that whoever sends many
   * waits for a slow reader instead of filling memory. @returns whether it was sent
   */
  deliver(workerId: string, incarnation: number, directive: D): Promise<boolean> {
    const entry = this.streams.get(workerId);
    if (entry?.incarnation !== incarnation || !isOpen(entry.call)) return Promise.resolve(false);
    const { call } = entry;
    return new Promise((resolve) => {
      const gone = () => resolve(false);
      call.once("close", gone);
      call.write(directive, (error?: Error | null) => {
        call.off("close", gone);
        resolve(!error);
      });
    });
  }

  /** Reads no more from a peer that does not read what it is sent, until it does: its answers would pile up here. */
  holdBack(call: grpc.ServerDuplexStream<unknown, D>): void {
    if (!call.writableNeedDrain || call.isPaused()) return;
    call.pause();
    call.once("drain", () => call.resume());
  }

  /** Of the worker's open stream. */
  incarnationOf(workerId: string): number | undefined {
    return this.streams.get(workerId)?.incarnation;
  }

  has(workerId: string): boolean {
    return this.streams.has(workerId);
  }

  isBound(workerId: string, incarnation: number): boolean {
    return this.incarnationOf(workerId) === incarnation;
  }

  /** Ends the stream of exactly this incarnation, with an error when it was `fenced`. @returns whether there was one */
  end(workerId: string, incarnation: number, fenced?: Pick<FenceWorker, "code" | "reason">): boolean {
    const entry = this.streams.get(workerId);
    if (entry?.incarnation !== incarnation) return false;
    this.streams.delete(workerId);
    if (fenced === undefined) entry.call.end();
    else entry.call.emit("error", toServiceError(new TroupeError(fenced.code, fenced.reason)));
    return true;
  }

  /** Forgets a call that ended by itself. @returns who it was, unless it was replaced before */
  drop(call: grpc.ServerDuplexStream<unknown, D>): { workerId: string; incarnation: number } | undefined {
    for (const [workerId, entry] of this.streams) {
      if (entry.call !== call) continue;
      this.streams.delete(workerId);
      return { workerId, incarnation: entry.incarnation };
    }
    return undefined;
  }
}
