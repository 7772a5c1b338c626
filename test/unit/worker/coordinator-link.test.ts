import { createServer, type AddressInfo } from "node:net";
import { once } from "node:events";
import { afterEach, expect, it, vi } from "vitest";
import { createLogger } from "../../../src/observability/logger.js";
import { serveCoordinator } from "../../../src/worker/coordinator-link.js";
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
      {
        role: "rollout",
        coordinator: `127.0.0.1:${await deadPort()},${coordinator.address}`,
        access: {},
        metricsAddress: "127.0.0.1:1",
        logger: createLogger({ role: "rollout", level: "silent" }),
        signal: stopping.signal,
        holdings: () => ({}),
        onOtherRun: () => undefined,
        onHeartbeat: () => undefined,
        onReconnect: () => undefined,
      },
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
