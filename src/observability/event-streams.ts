/** Server-sent events: one open response per watching browser, fed from the event bus. */
import { randomBytes } from "node:crypto";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { EventBus, PublishedEvent } from "./progress.js";

/** A watcher that reads this far behind is dropped; the browser reconnects and resumes by Last-Event-ID. */
const MAX_BACKLOG_BYTES = 4 * 1024 * 1024;
const MAX_STREAMS = 32;
/** Comments keep proxies from closing an idle stream. */
const KEEPALIVE_INTERVAL_MS = 15_000;

export interface EventStreams {
  readonly open: (bus: EventBus) => (request: IncomingMessage, response: ServerResponse) => void;
  readonly close: () => void;
}

export function createEventStreams(): EventStreams {
  const endings = new Set<() => void>();
  let isClosed = false;
  // Part of every event id: after a restart sequences begin again, and an id of the old process must not skip them.
  const instance = randomBytes(4).toString("hex");

  const open: EventStreams["open"] = (bus) => (request, response) => {
    if (isClosed || endings.size >= MAX_STREAMS) {
      response.writeHead(503, { "Content-Type": "text/plain; charset=utf-8" });
      response.end(`at most ${MAX_STREAMS} event streams\n`);
      return;
    }
    response.writeHead(200, {
      "Content-Type": "text/event-stream; charset=utf-8",
      "X-Accel-Buffering": "no",
    });
    if (request.method === "HEAD") return void response.end();

    const end = () => {
      clearInterval(keepalive);
      unsubscribe();
      endings.delete(end);
      response.destroy();
    };
    const write = (text: string) => {
      response.write(text);
      if (response.writableLength > MAX_BACKLOG_BYTES) end();
    };
    const keepalive = setInterval(() => write(": keepalive\n\n"), KEEPALIVE_INTERVAL_MS);
    keepalive.unref();
    let unsubscribe = () => {};
    endings.add(end);
    response.on("close", end);
    response.on("error", end);
    write("retry: 1000\n\n");
    unsubscribe = bus.subscribe((event) => write(frame(instance, event)), {
      after: lastSequence(instance, request),
    });
    // The backlog limit may already have ended the stream while history was replayed.
    if (!endings.has(end)) unsubscribe();
  };

  return {
    open,
    close: () => {
      isClosed = true;
      for (const end of [...endings]) end();
    },
  };
}

/** JSON never contains a raw newline, so one `data:` line holds the whole event. */
function frame(instance: string, event: PublishedEvent): string {
  return `id: ${instance}-${event.sequence}\ndata: ${JSON.stringify(event)}\n\n`;
}

/** Where a reconnecting watcher left off; 0 for a new one, or one that watched an earlier process. */
function lastSequence(instance: string, request: IncomingMessage): number {
  const match = /^([0-9a-f]{8})-(\d{1,15})$/.exec(String(request.headers["last-event-id"]));
  return match !== null && match[1] === instance ? Number(match[2]) : 0;
}
