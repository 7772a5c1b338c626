/** Real connections to the coordinator's server: which are taken, and what becomes of the others. */
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import * as grpc from "@grpc/grpc-js";
import { afterEach, expect, it } from "vitest";
import { ConnectionCap, networkOf, type RefusedConnection } from "../../../src/rpc/connection-cap.js";
import { troupe } from "../../../src/rpc/load-proto.js";
import { sleep } from "../../../src/shared/abort.js";
import { startRealCoordinator, type RealCoordinator } from "./real-coordinator.js";

const sockets: Socket[] = [];
let coordinator: RealCoordinator | undefined;
afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy();
  await coordinator?.close();
  coordinator = undefined;
});

async function serve(perAddress: number, total: number) {
  const refused: RefusedConnection[] = [];
  const counts: number[] = [];
  const connections = new ConnectionCap({ perAddress, total }, (one) => refused.push(one));
  connections.onChange = (open) => counts.push(open);
  coordinator = await startRealCoordinator({ connections });
  const [host, port] = coordinator.address.split(":");
  /** An HTTP/2 server speaks first, so a connection that was taken hears its settings. */
  const dial = async (from: string): Promise<"taken" | "closed"> => {
    const socket = connect({ host, port: Number(port), localAddress: from });
    sockets.push(socket);
    socket.on("error", () => undefined);
    socket.write("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\u0004\0\0\0\0\0");
    const heard = once(socket, "data").then(() => "taken" as const);
    const closed = once(socket, "close").then(() => "closed" as const);
    heard.catch(() => undefined);
    return Promise.race([closed, heard]);
  };
  return { refused, counts, dial };
}

const statusOf = (): Promise<grpc.status | undefined> => {
  const client = new troupe.v1.ControlService(coordinator!.address, grpc.credentials.createInsecure(), {
    "grpc.use_local_subchannel_pool": 1,
    "grpc.initial_reconnect_backoff_ms": 100,
  });
  return new Promise((resolve) =>
    client.status(
      {},
      new grpc.Metadata({ waitForReady: true }),
      { deadline: Date.now() + 10_000 },
      (error: grpc.ServiceError | null) => {
        client.close();
        resolve(error?.code);
      },
    ),
  );
};

it("one address has as many connections as it may, and another address still gets in", async () => {
  const { dial, refused } = await serve(2, 10);
  expect([await dial("127.0.0.2"), await dial("127.0.0.2")]).toEqual(["taken", "taken"]);
  expect(await dial("127.0.0.2")).toBe("closed");
  expect(await dial("127.0.0.3")).toBe("taken");
  expect(refused).toEqual([{ reason: "address", peer: "127.0.0.2" }]);
  expect(await statusOf()).toBeUndefined();
});

it("beyond the total nobody is taken; a place is free again when a connection ends", async () => {
  const { dial, refused, counts } = await serve(2, 3);
  for (const from of ["127.0.0.2", "127.0.0.3", "127.0.0.4"]) expect(await dial(from)).toBe("taken");
  expect(await dial("127.0.0.5")).toBe("closed");
  expect(refused).toEqual([{ reason: "total", peer: "127.0.0.5" }]);
  sockets[0].destroy();
  while (counts.at(-1) !== 2) await sleep(5);
  expect(await dial("127.0.0.5")).toBe("taken");
  expect(counts).toEqual([1, 2, 3, 2, 3]);
});

it("a worker that finds no place is let in once there is one", async () => {
  const { dial } = await serve(1, 1);
  expect(await dial("127.0.0.1")).toBe("taken");
  const answered = statusOf();
  await sleep(200);
  sockets[0].destroy();
  expect(await answered).toBeUndefined();
});

it.each([
  ["10.0.0.7", "10.0.0.7"],
  ["::ffff:10.0.0.7", "10.0.0.7"],
  ["::1", "0:0:0:0"],
  ["2001:db8::1", "2001:db8:0:0"],
  ["2001:db8:1:2:3:4:5:6", "2001:db8:1:2"],
  ["fe80::a:b:c:d%eth0", "fe80:0:0:0"],
])("%s counts as %s", (address, network) => {
  expect(networkOf(address)).toBe(network);
});
