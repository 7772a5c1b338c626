/**
 * The small HTTP side of every process: /metrics, /healthz and /readyz everywhere; on the coordinator also
 * /sd/prometheus, /api/status, /events (server-sent events) and the dashboard.
 *
 * Read-only by construction (GET and HEAD, no request body is ever read), loopback by default, no file path is ever
 * built from a request. A browser page from elsewhere cannot read it: the Host header must be one this server
 * expects (DNS rebinding), there are no CORS headers, and the pages run under `default-src 'self'`.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { networkInterfaces } from "node:os";
import type { Registry } from "prom-client";
import { sleep } from "../shared/abort.js";
import { TroupeError } from "../shared/errors.js";
import { readDashboardFiles, type DashboardFile } from "./dashboard-files.js";
import { createEventStreams } from "./event-streams.js";
import { createHostCheck } from "./host-check.js";
import type { EventBus } from "./progress.js";
import { exportRun } from "./run-metrics.js";
import type { RunStatus } from "./run-status.js";

/** One worker's /metrics, as Prometheus' HTTP service discovery wants it. */
export interface ScrapeTarget {
  /** `host:port` */
  readonly address: string;
  readonly role: string;
  readonly workerId: string;
}

/** What the coordinator adds; all are called per request. */
export interface CoordinatorPages {
  readonly runId: string;
  /** Registered workers that serve metrics; the coordinator itself is added here. */
  readonly targets: () => readonly ScrapeTarget[];
  /** Settles once what it tells is on disk; never when that fails, and with it the run. */
  readonly status: () => Promise<RunStatus>;
  readonly events: EventBus;
}

export interface HttpServerOptions {
  readonly registry: Registry;
  /** @default "127.0.0.1" */
  readonly host?: string;
  /** 0 picks a free port. @default 0 */
  readonly port?: number;
  /** Name of the option that sets the port, for the error when it is taken. @default "--http-port" */
  readonly portOption?: string;
  /** Whether this process can take work (registered, weights loaded). A string says why not. @default ready */
  readonly readiness?: () => true | string;
  /** Further Host names to accept beyond the ones of `createHostCheck`. */
  readonly allowedHosts?: readonly string[];
  readonly coordinator?: CoordinatorPages;
}

export interface HttpServer {
  readonly host: string;
  readonly port: number;
  /** E.g. `http://127.0.0.1:9464`; a wildcard host is shown as loopback. */
  readonly url: string;
  /** `host:port` under which others reach it: a wildcard host becomes this machine's first outward address. */
  readonly address: string;
  /** Ends event streams, closes all connections and frees the port. Idempotent. */
  close(): Promise<void>;
}

/** A scrape waits this long for a status that is not on disk yet, then shows the numbers of the one before. */
const STATUS_PATIENCE_MS = 1_000;
const MAX_HEADER_BYTES = 8 * 1024;
const MAX_URL_CHARACTERS = 1024;
const MAX_CONNECTIONS = 256;

const SECURITY_HEADERS: Readonly<Record<string, string>> = {
  "Content-Security-Policy":
    "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'",
  "X-Content-Type-Options": "nosniff",
  "X-Frame-Options": "DENY",
  "Referrer-Policy": "no-referrer",
  "Cross-Origin-Resource-Policy": "same-origin",
  "Cross-Origin-Opener-Policy": "same-origin",
};

type Route = (request: IncomingMessage, response: ServerResponse) => Promise<void> | void;

/**
 * @throws {TroupeError} CONFIG when the port is taken, may not be bound, or the host is not an address of this machine
 */
export async function startHttpServer(options: HttpServerOptions): Promise<HttpServer> {
  const host = options.host ?? "127.0.0.1";
  const isExpectedHost = createHostCheck([host, ...(options.allowedHosts ?? [])]);
  const streams = createEventStreams();
  const routes = makeRoutes(options, streams.open);

  const server = createServer(
    { maxHeaderSize: MAX_HEADER_BYTES, connectionsCheckingInterval: 2_000 },
    (request, response) => {
      void answer(request, response).catch(() => {
        if (!response.headersSent) sendText(response, 500, "internal error\n");
        else response.destroy();
      });
    },
  );
  server.maxConnections = MAX_CONNECTIONS;
  server.headersTimeout = 10_000;
  server.requestTimeout = 15_000;
  server.keepAliveTimeout = 5_000;

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    for (const [name, value] of Object.entries(SECURITY_HEADERS)) response.setHeader(name, value);
    response.setHeader("Cache-Control", "no-store");
    if (request.method !== "GET" && request.method !== "HEAD") {
      response.setHeader("Allow", "GET, HEAD");
      // The body is not read, so the connection cannot be used again.
      response.setHeader("Connection", "close");
      return sendText(response, 405, "only GET and HEAD\n");
    }
    if (!isExpectedHost(request.headers.host)) return sendText(response, 421, "unexpected Host header\n");
    const url = request.url ?? "/";
    if (url.length > MAX_URL_CHARACTERS) return sendText(response, 414, "URL too long\n");
    // Routes are looked up by the exact path as sent: nothing is decoded, joined or normalised.
    const route = routes.get(url.split("?", 1)[0]);
    if (route === undefined) return sendText(response, 404, "not found\n");
    await route(request, response);
  }

  await listen(server, host, options.port ?? 0, options.portOption ?? "--http-port");
  const port = (server.address() as AddressInfo).port;

  let closing: Promise<void> | undefined;
  return {
    host,
    port,
    url: `http://${urlHost(host)}:${port}`,
    address: `${outwardHost(host)}:${port}`,
    close: () =>
      (closing ??= new Promise((resolve) => {
        streams.close();
        server.close(() => resolve());
        server.closeAllConnections();
      })),
  };
}

function makeRoutes(
  options: HttpServerOptions,
  openEventStream: (bus: EventBus) => Route,
): Map<string, Route> {
  const routes = new Map<string, Route>();
  const { coordinator } = options;
  const refresh = coordinator === undefined ? undefined : exportRun(options.registry, coordinator);
  routes.set("/metrics", async (_request, response) => {
    if (refresh !== undefined) await settledWithin(refresh(), STATUS_PATIENCE_MS);
    const body = await options.registry.metrics();
    send(response, 200, options.registry.contentType, body);
  });
  routes.set("/healthz", (_request, response) => sendText(response, 200, "ok\n"));
  routes.set("/readyz", (_request, response) => {
    const readiness = options.readiness?.() ?? true;
    return readiness === true
      ? sendText(response, 200, "ready\n")
      : sendText(response, 503, `not ready: ${readiness}\n`);
  });
  if (coordinator === undefined) return routes;

  routes.set("/sd/prometheus", (request, response) => {
    // Whoever asks has just reached this process at the Host it names, so that is its own scrape address.
    const self: ScrapeTarget = {
      address: withPort(request.headers.host ?? ""),
      role: "coordinator",
      workerId: "coordinator",
    };
    const list = [self, ...coordinator.targets()]
      .filter(({ address }) => address !== "")
      .map((target) => ({
        targets: [target.address],
        labels: { role: target.role, worker_id: target.workerId, run_id: coordinator.runId },
      }));
    sendJson(response, list);
  });
  routes.set("/api/status", async (_request, response) => sendJson(response, await coordinator.status()));
  routes.set("/events", openEventStream(coordinator.events));
  for (const file of readDashboardFiles()) routes.set(file.path, serve(file));
  return routes;
}

function serve(file: DashboardFile): Route {
  return (_request, response) => send(response, 200, file.contentType, file.body);
}

function sendJson(response: ServerResponse, value: unknown): void {
  send(response, 200, "application/json; charset=utf-8", JSON.stringify(value));
}

function sendText(response: ServerResponse, status: number, body: string): void {
  send(response, status, "text/plain; charset=utf-8", body);
}

/** HEAD gets the same headers; node drops the body by itself. */
function send(response: ServerResponse, status: number, contentType: string, body: string | Buffer): void {
  response.statusCode = status;
  response.setHeader("Content-Type", contentType);
  response.setHeader("Content-Length", Buffer.byteLength(body));
  response.end(body);
}

/** A disk that does not answer must not hide the metrics that tell of it. */
async function settledWithin(work: Promise<void>, ms: number): Promise<void> {
  const patience = new AbortController();
  try {
    await Promise.race([work, sleep(ms, patience.signal)]);
  } finally {
    patience.abort();
  }
}

function withPort(host: string): string {
  return /:\d+$/.test(host) ? host : `${host}:80`;
}

function urlHost(host: string): string {
  if (host === "0.0.0.0") return "127.0.0.1";
  if (host === "::") return "[::1]";
  return host.includes(":") ? `[${host}]` : host;
}

function outwardHost(host: string): string {
  if (host !== "0.0.0.0" && host !== "::") return urlHost(host);
  const outward = Object.values(networkInterfaces())
    .flatMap((addresses) => addresses ?? [])
    .find((address) => !address.internal && address.family === "IPv4");
  return outward?.address ?? urlHost(host);
}

async function listen(server: Server, host: string, port: number, portOption: string): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    server.once("error", (error: NodeJS.ErrnoException) =>
      reject(listenError(error, host, port, portOption)),
    );
    server.listen({ host, port, exclusive: true }, resolve);
  });
}

function listenError(
  error: NodeJS.ErrnoException,
  host: string,
  port: number,
  portOption: string,
): TroupeError {
  const advice: Readonly<Record<string, string>> = {
    EADDRINUSE: `port ${port} on ${host} is in use; free it, pick another with ${portOption} PORT, or ${portOption} 0 for any free port`,
    EACCES: `port ${port} on ${host} may not be bound by this user; pick one above 1023 with ${portOption} PORT`,
    EADDRNOTAVAIL: `${host} is not an address of this machine, so port ${port} cannot be bound; pick another host`,
    ENOTFOUND: `host ${host} does not resolve, so port ${port} cannot be bound; pick another host`,
  };
  const message =
    advice[error.code ?? ""] ?? `cannot listen on ${host}:${port} (${portOption}): ${error.message}`;
  return new TroupeError("CONFIG", message, { cause: error });
}
