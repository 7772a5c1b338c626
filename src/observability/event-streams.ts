/** Server-sent events: one open response per watching browser, fed from the event bus. */
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
    unsubscribe = bus.subscribe((event) => write(frame(event)), { after: lastEventId(request) });
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
function frame(event: PublishedEvent): string {
  return `id: ${event.sequence}\ndata: ${JSON.stringify(event)}\n\n`;
}

function lastEventId(request: IncomingMessage): number {
  const value = request.headers["last-event-id"];
  return typeof value === "string" && /^\d{1,15}$/.test(value) ? Number(value) : 0;
}
