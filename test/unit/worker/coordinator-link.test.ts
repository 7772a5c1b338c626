import { createServer, type AddressInfo } from "node:net";
import { once } from "node:events";
import { afterEach, expect, it, vi } from "vitest";
import { createLogger } from "../../../src/observability/logger.js";
import { deadlineIn } from "../../../src/rpc/deadlines.js";
import { sleep } from "../../../src/shared/abort.js";
import { describeError, TroupeError } from "../../../src/shared/errors.js";
import { serveCoordinator, type LinkOptions } from "../../../src/worker/coordinator-link.js";
import { startRealCoordinator } from "../rpc/real-coordinator.js";

afterEach(() => void vi.restoreAllMocks());

/** A port of this machine where nobody listens. */
async function deadPort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, "close");
  return port;
}

const optionsOf = (coordinator: string, signal: AbortSignal): LinkOptions => ({
  role: "rollout",
  coordinator,
  access: {},
  metricsAddress: "127.0.0.1:1",
  logger: createLogger({ role: "rollout", level: "silent" }),
  signal,
  holdings: () => ({}),
  onOtherRun: () => undefined,
  onHeartbeat: () => undefined,
  onReconnect: () => undefined,
});

it("a worker that nobody answers says so in one sentence of ours, with the way on and no word of gRPC's", async () => {
  const address = `127.0.0.1:${await deadPort()}`;
  // Every attempt seems to take as long as one may, so the minute passes in a few attempts.
  let nowMs = 0;
  vi.spyOn(performance, "now").mockImplementation(() => (nowMs += 60_000));
  const error: unknown = await serveCoordinator(
    optionsOf(address, new AbortController().signal),
    async () => undefined,
  ).catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(TroupeError);
  expect((error as TroupeError).code).toBe("UNREACHABLE");
  expect((error as TroupeError).cause).toBeUndefined();
  expect(describeError(error)).toBe(
    `no coordinator answered at ${address} for 60 s (connect ECONNREFUSED ${address}); start it, or give the address it listens at (grpcAddress in coordinator.json of its run directory)`,
  );
}, 15_000);

it("a worker that was stopped for ten minutes while joining tries again instead of giving up", async () => {
  const coordinator = await startRealCoordinator();
  const stopping = new AbortController();
  let sessions = 0;
  // The clock jumps within the first attempt, as it does for a process that gets SIGSTOP and much later SIGCONT.
  const now = performance.now.bind(performance);
  let reads = 0;
  vi.spyOn(performance, "now").mockImplementation(() => now() + (reads++ === 0 ? 0 : 600_000));
  try {
    await serveCoordinator(
      optionsOf(`127.0.0.1:${await deadPort()},${coordinator.address}`, stopping.signal),
      async () => {
        sessions += 1;
        stopping.abort();
      },
    );
  } finally {
    await coordinator.close();
  }
  expect(sessions).toBe(1);
});

it("a worker that hears nothing leaves before its lease is over, and asks the next address first", async () => {
  const cluster = { heartbeatIntervalMs: 200, leaseTtlMs: 4_000 };
  const [silent, other] = [await startRealCoordinator({ cluster }), await startRealCoordinator({ cluster })];
  // It would take the worker back at once, but never answers a heartbeat.
  const dispatch = silent.host.dispatch.bind(silent.host);
  let registrations = 0;
  vi.spyOn(silent.host, "dispatch").mockImplementation((event, payloads) => {
    if (event.type === "WorkerRegistered") registrations += 1;
    if (event.type !== "WorkerHeartbeat") dispatch(event, payloads);
  });
  const stopping = new AbortController();
  const joinedMs: number[] = [];
  try {
    await serveCoordinator(
      optionsOf(`${silent.address},${other.address}`, stopping.signal),
      async ({ signal }) => {
        if (joinedMs.push(performance.now()) === 2) return stopping.abort();
        await once(signal, "abort");
      },
    );
    expect(registrations).toBe(1);
    const [first, second] = joinedMs;
    expect(second - first).toBeLessThan(2 * cluster.leaseTtlMs);
  } finally {
    await silent.close();
    await other.close();
  }
}, 30_000);

it("a worker that was held up for longer than its lease still hears the coordinator that is there", async () => {
  const cluster = { heartbeatIntervalMs: 200, leaseTtlMs: 4_000 };
  const coordinator = await startRealCoordinator({ cluster });
  const stopping = new AbortController();
  const now = performance.now.bind(performance);
  let pausedMs = 0;
  vi.spyOn(performance, "now").mockImplementation(() => now() + pausedMs);
  let sessions = 0;
  let beats = 0;
  try {
    const options = optionsOf(coordinator.address, stopping.signal);
    const onHeartbeat = () => {
      beats += 1;
      pausedMs += 2 * cluster.leaseTtlMs; // SIGSTOP and SIGCONT between two heartbeats
      if (beats === 3) stopping.abort();
    };
    await serveCoordinator({ ...options, onHeartbeat }, async ({ draining }) => {
      sessions += 1;
      await once(draining, "abort");
    });
    expect(beats).toBeGreaterThanOrEqual(3);
    expect(sessions).toBe(1);
  } finally {
    await coordinator.close();
  }
}, 30_000);

it("a worker whose name another process takes ends, and says what to do, instead of taking it back", async () => {
  const coordinator = await startRealCoordinator();
  const stopping = new AbortController();
  const serve = () =>
    serveCoordinator(
      { ...optionsOf(coordinator.address, stopping.signal), role: "learner", workerId: "learner-0" },
      ({ clients, sender, draining }) =>
        new Promise((resolve, reject) => {
          const stream = clients.learner.perform({ deadline: deadlineIn(20_000) });
          draining.addEventListener("abort", () => (stream.cancel(), resolve()), { once: true });
          stream.on("error", reject);
          stream.on("data", () => undefined);
          stream.write({ sender, hello: { bulkPort: 0 } });
          stream.write({ sender, behind: { generation: 0, appliedStep: 0 } });
        }),
    );
  try {
    const { members } = coordinator.host.state.volatile;
    const heard = vi.spyOn(coordinator.host, "dispatch");
    const first = serve().catch((error: unknown) => error);
    // Its hello was read before.
    await expect.poll(() => heard.mock.calls.some(([{ type }]) => type === "LearnerBehind")).toBe(true);
    const second = serve();
    const error = (await first) as TroupeError;
    expect(error.code).toBe("REPLACED");
    expect(error.message).toContain(
      "another process joined as learner-0; give every worker a --worker-id of its own",
    );
    const { incarnation } = members.get("learner-0")!;
    await sleep(1_000);
    expect(members.get("learner-0")?.incarnation, "the second one is left alone").toBe(incarnation);
    stopping.abort();
    await second;
  } finally {
    await coordinator.close();
  }
}, 30_000);
