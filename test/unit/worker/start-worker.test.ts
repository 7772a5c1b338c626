import { expect, it } from "vitest";
import { createServer, type AddressInfo } from "node:net";
import { once } from "node:events";
import { startWorker } from "../../../src/worker/start-worker.js";
import { startRealCoordinator } from "../rpc/real-coordinator.js";

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, "close");
  return port;
}

it("a learner is ready once it holds the state that the next step starts from, not when it has registered", async () => {
  const coordinator = await startRealCoordinator();
  const { host } = coordinator;
  host.dispatch({ type: "StageStarted", stage: "ppo" });
  const stopping = new AbortController();
  const httpPort = await freePort();
  const ended = startWorker(
    "learner",
    { coordinator: coordinator.address, workerId: "l1", httpPort, signal: stopping.signal },
    {
      holdings: () => ({}),
      forget: () => undefined,
      perform: ({ signal, draining }) =>
        new Promise((resolve) => {
          for (const end of [signal, draining]) end.addEventListener("abort", () => resolve());
        }),
    },
  );
  const readyz = async () => (await fetch(`http://127.0.0.1:${httpPort}/readyz`)).text();
  await expect.poll(readyz, { timeout: 10_000 }).toContain("gives it no work yet");
  const { incarnation, heal } = host.state.volatile.members.get("l1")!;
  const position = { stage: "ppo", step: 0, hash: "" };
  const { healId } = heal!;
  // A whole heartbeat later it is still copying.
  const beats = () => host.state.volatile.members.get("l1")!.leaseExpiresAtMs;
  const before = beats();
  await expect.poll(beats, { timeout: 10_000 }).toBeGreaterThan(before);
  expect(await readyz()).toContain("gives it no work yet");
  host.dispatch({ type: "LearnerHealed", workerId: "l1", incarnation, healId, position });
  await expect.poll(readyz, { timeout: 10_000 }).toBe("ready\n");
  stopping.abort();
  await ended;
  await coordinator.close();
}, 40_000);
