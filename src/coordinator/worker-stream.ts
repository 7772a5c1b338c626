/** The coordinator's end of a worker's long-lived stream, the same for both roles. */
import type * as grpc from "@grpc/grpc-js";
import type { Logger } from "../observability/logger.js";
import type { Sender__Output } from "../rpc/generated/troupe/v1/Sender.js";
import { toServiceError } from "../rpc/status.js";
import { describeError } from "../shared/errors.js";
import type { WorkerRole } from "../shared/roles.js";
import type { CoreHost } from "./core-host.js";
import { checkSender, checkSpeaksAs } from "./sender.js";
import { isOpen, type StreamRegistry } from "./stream-registry.js";
import type { WorkerDirectory } from "./worker-directory.js";

/** Who a message came from, once its signature was checked. */
export interface StreamPeer {
  readonly workerId: string;
  readonly incarnation: number;
}

export interface WorkerStreamOptions<D> {
  readonly role: WorkerRole;
  readonly streams: StreamRegistry<D>;
  readonly host: CoreHost;
  readonly directory: WorkerDirectory;
  readonly runId: string;
  readonly logger: Logger;
  /** The stream ended by itself, or broke. */
  readonly onGone?: (workerId: string) => void;
}

/**
 * Reads a worker's stream: hands every message on with its checked sender, ends the stream when one is refused, and
 * tells the core when it is gone.
 * @param take throws to refuse a message
 */
export function serveWorkerStream<M extends { readonly sender: Sender__Output | null }, D>(
  call: grpc.ServerDuplexStream<M, D>,
  { role, streams, host, directory, runId, logger, onGone }: WorkerStreamOptions<D>,
  take: (message: M, from: StreamPeer) => void,
): void {
  call.on("data", (message: M) => {
    if (!isOpen(call)) return; // replaced, released or refused
    try {
      const sender = checkSender(message.sender, runId);
      checkSpeaksAs([role], sender, host);
      take(message, { workerId: sender.workerId, incarnation: sender.incarnation });
    } catch (error) {
      logger.warn({ error: describeError(error) }, `${role} stream refused`);
      call.emit("error", toServiceError(error));
    }
  });
  const gone = () => {
    const who = streams.drop(call);
    if (who === undefined) return;
    onGone?.(who.workerId);
    directory.lost(who.workerId, who.incarnation, "connection lost");
    host.dispatch({ type: "WorkerDisconnected", ...who });
  };
  call.on("end", () => call.end());
  call.on("cancelled", gone);
  call.on("close", gone);
  call.on("error", gone);
}
