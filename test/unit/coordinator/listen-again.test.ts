import { createServer, type AddressInfo, type Server } from "node:net";
import { afterEach, expect, it } from "vitest";
import { Registry } from "prom-client";
import { listenAgain } from "../../../src/coordinator/listen-again.js";
import { startHttpServer } from "../../../src/observability/http-server.js";
import { configError } from "../../../src/shared/errors.js";

const never = new AbortController().signal;
const taken: Server[] = [];
afterEach(() => {
  for (const server of taken.splice(0)) server.close();
});

async function takePort(): Promise<{ port: number; free: () => void }> {
  const server = createServer();
  taken.push(server);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { port: (server.address() as AddressInfo).port, free: () => server.close() };
}

const open = (port: number) => startHttpServer({ registry: new Registry(), host: "127.0.0.1", port });

it("listens once the port is free again", async () => {
  const { port, free } = await takePort();
  const opening = listenAgain(() => open(port), never);
  setTimeout(free, 300);
  const http = await opening;
  expect(http.port).toBe(port);
  await http.close();
});

it("names the port that stays taken when patience ends", async () => {
  const { port } = await takePort();
  await expect(listenAgain(() => open(port), never, 0)).rejects.toThrow(
    `port ${port} on 127.0.0.1 is in use`,
  );
});

it("tries only once when something else is wrong", async () => {
  let calls = 0;
  const failing = () => {
    calls += 1;
    return Promise.reject(configError("no such host"));
  };
  await expect(listenAgain(failing, never)).rejects.toThrow("no such host");
  expect(calls).toBe(1);
});
