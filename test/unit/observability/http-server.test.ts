import { request as httpRequest, type IncomingHttpHeaders } from "node:http";
import { connect } from "node:net";
import { afterEach, expect, test, vi } from "vitest";
import { createMetrics } from "../../../src/observability/metrics.js";
import { EventBus } from "../../../src/observability/progress.js";
import { createHostCheck } from "../../../src/observability/host-check.js";
import {
  startHttpServer,
  type HttpServer,
  type HttpServerOptions,
} from "../../../src/observability/http-server.js";
import type { RunStatus } from "../../../src/observability/run-status.js";
import { makeDeferred } from "../../../src/shared/abort.js";

const open: HttpServer[] = [];
afterEach(async () => {
  await Promise.all(open.splice(0).map((server) => server.close()));
});

const STATUS: RunStatus = {
  runId: "run-1",
  name: "<b>name</b>",
  version: "0.1.0",
  stage: "ppo",
  unit: "iteration",
  completedUnits: 3,
  totalUnits: 50,
  optimizerStep: 6,
  isPaused: false,
  policyVersion: 3,
  generation: 1,
  coordinatorEpoch: 1,
  elapsedMs: 1000,
  ledger: {
    admitted: 4,
    trained: 3,
    dropped: 0,
    buffered: 1,
    droppedByReason: {},
    refusedByReason: {},
    inFlight: 0,
    trainedByStaleness: {},
  },
  workers: [],
};

async function start(options: Partial<HttpServerOptions> = {}) {
  const { registry } = createMetrics("coordinator", { processMetrics: false });
  const server = await startHttpServer({ registry, ...options });
  open.push(server);
  return server;
}

async function startCoordinator(events = new EventBus()) {
  const server = await start({
    coordinator: {
      runId: "run-1",
      targets: () => [{ address: "10.0.0.5:9464", role: "rollout", workerId: "rollout-0" }],
      status: async () => STATUS,
      events,
    },
  });
  return { server, events };
}

interface Answer {
  status: number;
  headers: IncomingHttpHeaders;
  body: string;
}

/** A request with the path exactly as given: fetch would normalise it first. */
function get(
  server: HttpServer,
  path: string,
  options: { method?: string; headers?: Record<string, string> } = {},
) {
  return new Promise<Answer>((resolve, reject) => {
    const request = httpRequest(
      { host: server.host, port: server.port, path, agent: false, ...options },
      (response) => {
        let body = "";
        response.on("data", (chunk: Buffer) => (body += chunk.toString()));
        response.on("end", () =>
          resolve({ status: response.statusCode ?? 0, headers: response.headers, body }),
        );
        response.on("error", reject);
      },
    );
    request.on("error", reject);
    request.end();
  });
}

test("a worker serves metrics, health and readiness on loopback, and nothing of the coordinator", async () => {
  let readiness: true | string = "not registered yet";
  const server = await start({ readiness: () => readiness });
  expect(server.host).toBe("127.0.0.1");
  expect(server.port).toBeGreaterThan(0);
  const metrics = await get(server, "/metrics");
  expect(metrics.headers["content-type"]).toContain("text/plain; version=0.0.4");
  expect(metrics.body).toContain("troupe_experiences_admitted_total 0");
  expect((await get(server, "/healthz")).status).toBe(200);
  expect(await get(server, "/readyz")).toMatchObject({
    status: 503,
    body: "not ready: not registered yet\n",
  });
  readiness = true;
  expect((await get(server, "/readyz")).status).toBe(200);
  for (const path of ["/", "/api/status", "/events", "/sd/prometheus"]) {
    expect((await get(server, path)).status).toBe(404);
  }
});

test("service discovery lists the coordinator as it was reached, then every worker", async () => {
  const { server } = await startCoordinator();
  const answer = await get(server, "/sd/prometheus", { headers: { host: "coordinator:9464" } });
  expect(answer.headers["content-type"]).toBe("application/json; charset=utf-8");
  expect(JSON.parse(answer.body)).toEqual([
    {
      targets: ["coordinator:9464"],
      labels: { role: "coordinator", worker_id: "coordinator", run_id: "run-1" },
    },
    { targets: ["10.0.0.5:9464"], labels: { role: "rollout", worker_id: "rollout-0", run_id: "run-1" } },
  ]);
});

test("the status is JSON and the dashboard's files are served under a strict content policy", async () => {
  const { server } = await startCoordinator();
  const status = await get(server, "/api/status");
  expect(JSON.parse(status.body)).toEqual(STATUS);
  expect(status.headers["access-control-allow-origin"]).toBeUndefined();
  const types = {
    "/": "text/html",
    "/app.js": "text/javascript",
    "/charts.js": "text/javascript",
    "/style.css": "text/css",
  };
  for (const [path, type] of Object.entries(types)) {
    const { status: code, headers, body } = await get(server, path);
    expect(code).toBe(200);
    expect(headers["content-type"]).toContain(type);
    expect(headers["content-security-policy"]).toMatch(/^default-src 'self';/);
    expect(headers["content-security-policy"]).not.toContain("unsafe");
    expect(headers["x-content-type-options"]).toBe("nosniff");
    expect(headers["x-frame-options"]).toBe("DENY");
    expect(body.length).toBeGreaterThan(500);
  }
});

test("the dashboard never writes markup: no inline script or style, no HTML sinks", async () => {
  const { server } = await startCoordinator();
  const html = (await get(server, "/")).body;
  expect(html).not.toMatch(/<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=|https?:/i);
  for (const path of ["/app.js", "/charts.js"]) {
    expect((await get(server, path)).body).not.toMatch(
      /innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|srcdoc/,
    );
  }
});

test.each([
  "/../package.json",
  "/..%2fpackage.json",
  "/%2e%2e/%2e%2e/etc/passwd",
  "/app.js/../../http-server.ts",
  "/app.js%00.html",
  "//etc/passwd",
  "/.",
  "/dashboard/app.js",
  "/__proto__",
  "/constructor",
  "http://127.0.0.1/app.js",
])("path %s finds nothing", async (path) => {
  const { server } = await startCoordinator();
  expect((await get(server, path)).status).toBe(404);
});

test.each(["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])("%s is refused", async (method) => {
  const { server } = await startCoordinator();
  const answer = await get(server, "/api/status", { method });
  expect(answer.status).toBe(405);
  expect(answer.headers.allow).toBe("GET, HEAD");
});

test("HEAD has GET's headers and no body", async () => {
  const { server } = await startCoordinator();
  const [head, full] = [
    await get(server, "/api/status", { method: "HEAD" }),
    await get(server, "/api/status"),
  ];
  expect(head).toMatchObject({ status: 200, body: "" });
  expect(head.headers["content-length"]).toBe(full.headers["content-length"]);
  expect((await get(server, "/events", { method: "HEAD" })).status).toBe(200);
});

test("a name that public DNS can rebind is not answered", async () => {
  const { server } = await startCoordinator();
  for (const path of ["/", "/metrics", "/api/status", "/events"]) {
    const answer = await get(server, path, { headers: { host: `evil.example:${server.port}` } });
    expect(answer.status).toBe(421);
    expect(answer.body).not.toContain("run-1");
  }
  expect((await get(server, "/healthz", { headers: { host: `localhost:${server.port}` } })).status).toBe(200);
});

test("which hosts are expected", () => {
  const isExpected = createHostCheck(["troupe.example.org"]);
  const accepted = [
    "127.0.0.1",
    "10.1.2.3:80",
    "[::1]:9464",
    "localhost:1",
    "coordinator:9464",
    "a.localhost",
  ];
  accepted.push(
    "troupe.ns.svc",
    "troupe.ns.svc.cluster.local:9464",
    "TROUPE.example.org",
    "troupe.example.org.:80",
  );
  for (const host of accepted) expect([host, isExpected(host)]).toEqual([host, true]);
  const refused = [
    undefined,
    "",
    "evil.example",
    "127.0.0.1.evil.example",
    "localhost.evil.example",
    "evilsvc.com",
  ];
  refused.push(
    "a@127.0.0.1",
    "127.0.0.1:80:80",
    "[::1",
    "[evil]:80",
    "x y",
    "troupe.example.org.evil.com",
    ".",
  );
  for (const host of refused) expect([host, isExpected(host)]).toEqual([host, false]);
});

test("long URLs and large headers are refused", async () => {
  const server = await start();
  expect((await get(server, `/${"a".repeat(2000)}`)).status).toBe(414);
  expect((await get(server, "/healthz", { headers: { "x-big": "a".repeat(9000) } })).status).toBe(431);
  expect((await get(server, "/healthz")).status).toBe(200);
});

/** Reads an event stream until `count` events came, then hangs up. */
async function readStream(server: HttpServer, count: number, headers: Record<string, string> = {}) {
  const response = await fetch(`${server.url}/events`, { headers });
  expect(response.headers.get("content-type")).toContain("text/event-stream");
  const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  const frames = () => text.split("\n\n").filter((frame) => frame.startsWith("id: "));
  while (frames().length < count) {
    const { value, done } = await reader.read();
    if (done) break;
    text += value;
  }
  await reader.cancel();
  return frames().map((frame) => {
    const [id, data] = frame.split("\n");
    return { id: id.slice(4), event: JSON.parse(data.slice(6)) as { text: string } };
  });
}

test("events stream history then live events, and a reconnect resumes after the last one seen", async () => {
  const { server, events } = await startCoordinator();
  events.publish({ type: "message", level: "info", text: "one\ntwo" });
  const reading = readStream(server, 2);
  setTimeout(() => events.publish({ type: "message", level: "info", text: "live" }), 20);
  const first = await reading;
  expect(first.map(({ event }) => event.text)).toEqual(["one\ntwo", "live"]);

  events.publish({ type: "message", level: "info", text: "missed" });
  const resumed = await readStream(server, 1, { "last-event-id": first[1].id });
  expect(resumed.map(({ event }) => event.text)).toEqual(["missed"]);

  const afterRestart = await readStream(server, 3, { "last-event-id": "00000000-999" });
  expect(afterRestart.map(({ event }) => event.text)).toEqual(["one\ntwo", "live", "missed"]);
});

test("a watcher that stops reading is dropped instead of filling the memory", async () => {
  const { server, events } = await startCoordinator();
  const socket = connect(server.port, server.host);
  await new Promise((resolve) => socket.once("connect", resolve));
  socket.write("GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n");
  await new Promise((resolve) => socket.once("data", resolve));
  socket.pause();
  const text = "x".repeat(1_000_000);
  for (let i = 0; i < 40; i++) {
    events.publish({ type: "message", level: "info", text });
    await new Promise((resolve) => setImmediate(resolve));
  }
  let received = 0;
  socket.on("data", (chunk) => (received += chunk.length));
  const closed = new Promise((resolve) => socket.once("close", resolve));
  socket.on("error", () => {});
  socket.resume();
  await closed;
  expect(received).toBeLessThan(40_000_000);
});

test("the number of event streams is bounded, and a place is free again after one hangs up", async () => {
  const { server } = await startCoordinator();
  const aborts = Array.from({ length: 32 }, () => new AbortController());
  const opened = await Promise.all(aborts.map(({ signal }) => fetch(`${server.url}/events`, { signal })));
  expect(opened.every((response) => response.status === 200)).toBe(true);
  expect((await get(server, "/events")).status).toBe(503);
  aborts[0].abort();
  await vi.waitFor(async () => expect((await get(server, "/events", { method: "HEAD" })).status).toBe(200));
  for (const abort of aborts) abort.abort();
});

test("close ends event streams and idle connections, frees the port, and may be called again", async () => {
  const { server } = await startCoordinator();
  const response = await fetch(`${server.url}/events`);
  const idle = connect(server.port, server.host);
  await new Promise((resolve) => idle.once("connect", resolve));
  const idleClosed = new Promise((resolve) => idle.once("close", resolve));
  idle.on("error", () => {});
  const ended = response.text().then(
    () => "ended",
    () => "cut",
  );
  await Promise.all([server.close(), server.close()]);
  await server.close();
  expect(["ended", "cut"]).toContain(await ended);
  await idleClosed;
  const again = await start({ port: server.port });
  expect(again.port).toBe(server.port);
});

test("a taken port is a CONFIG error naming the port and the option", async () => {
  const { port } = await start();
  await expect(start({ port, portOption: "--metrics-port" })).rejects.toMatchObject({
    code: "CONFIG",
    message: expect.stringMatching(new RegExp(`port ${port}.*in use.*--metrics-port`)) as string,
  });
});

test("a wildcard host is advertised by an address others can reach, and linked as loopback", async () => {
  const server = await start({ host: "0.0.0.0" });
  expect(server.url).toBe(`http://127.0.0.1:${server.port}`);
  expect(server.address).toMatch(new RegExp(`^\\d+\\.\\d+\\.\\d+\\.\\d+:${server.port}$`));
  expect(server.address).not.toMatch(/^0\.0\.0\.0/);
  expect((await fetch(`http://${server.address}/healthz`)).status).toBe(200);
  expect((await start()).address).toMatch(/^127\.0\.0\.1:/);
});

test("a host that is not of this machine is a CONFIG error naming it", async () => {
  await expect(start({ host: "192.0.2.1" })).rejects.toMatchObject({
    code: "CONFIG",
    message: expect.stringContaining("192.0.2.1") as string,
  });
});

test("what is not on disk yet is not told: /api/status waits, /metrics shows the numbers of before", async () => {
  const { registry } = createMetrics("coordinator", { processMetrics: false });
  let status = Promise.resolve(STATUS);
  const server = await start({
    registry,
    coordinator: { runId: "r", targets: () => [], events: new EventBus(), status: () => status },
  });
  await get(server, "/metrics");
  const written = makeDeferred<RunStatus>();
  status = written.promise;
  let isTold = false;
  const answer = get(server, "/api/status").finally(() => (isTold = true));
  const { body } = await get(server, "/metrics");
  expect(body).toContain(`troupe_optimizer_step ${STATUS.optimizerStep}\n`);
  expect(isTold).toBe(false);
  written.resolve({ ...STATUS, optimizerStep: 99 });
  expect(JSON.parse((await answer).body)).toMatchObject({ optimizerStep: 99 });
});

test("a provider that throws answers 500 without its message, and the server lives on", async () => {
  const server = await start({
    coordinator: {
      runId: "r",
      targets: () => [],
      events: new EventBus(),
      status: () => {
        throw new Error("private detail");
      },
    },
  });
  const answer = await get(server, "/api/status");
  expect(answer).toMatchObject({ status: 500, body: "internal error\n" });
  expect((await get(server, "/healthz")).status).toBe(200);
});
