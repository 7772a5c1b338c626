/** A coordinator that takes a run over, on real ports: who gets in, and when. */
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type AddressInfo, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { configSchema, type Config } from "../../../src/config/schema.js";
import { openCoordinator, type Coordinator } from "../../../src/coordinator/coordinator.js";
import { openEndpoints, type Endpoints } from "../../../src/coordinator/endpoints.js";
import { openDurability } from "../../../src/coordinator/standby-durability.js";
import { JoinTokens } from "../../../src/rpc/auth.js";
import { CONTROL_DEADLINE_MS, deadlineIn } from "../../../src/rpc/deadlines.js";
import type { RegisterReply__Output } from "../../../src/rpc/generated/troupe/v1/RegisterReply.js";
import { PROTOCOL_VERSION } from "../../../src/rpc/load-proto.js";
import { readCoordinatorFile } from "../../../src/shared/coordinator-file.js";
import { sleep } from "../../../src/shared/abort.js";
import { openClients } from "../../../src/worker/coordinator-link.js";

let runDir: string;
const stopping = new AbortController();
const taken: Server[] = [];
let coordinator: Coordinator | undefined;
let endpoints: Endpoints | undefined;

beforeEach(() => {
  runDir = mkdtempSync(join(tmpdir(), "troupe-endpoints-"));
});
afterEach(async () => {
  for (const server of taken.splice(0)) server.close();
  await endpoints?.close(0);
  await coordinator?.close(undefined);
  [endpoints, coordinator] = [undefined, undefined];
  rmSync(runDir, { recursive: true, force: true });
});

async function takePort(): Promise<{ port: number; free: () => Promise<void> }> {
  const server = createServer().listen(0, "127.0.0.1");
  taken.push(server);
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const free = async () => {
    server.close();
    await once(server, "close");
  };
  return { port, free };
}

function writeToken(): string {
  const path = join(runDir, "token");
  writeFileSync(path, "0123456789abcdef", { mode: 0o600 });
  return path;
}

const configOf = (cluster: Partial<Config["cluster"]>): Config =>
  configSchema.parse({ data: { path: "rows.jsonl" }, cluster });

/** What a coordinator that was killed leaves: epoch 1 with a stage open. */
async function leaveRun(config: Config): Promise<void> {
  const durability = await openDurability({
    ...{ config, runDir, standby: false, mayContinue: false, allowDrift: false },
    signal: stopping.signal,
  });
  await durability!.log.append([
    { record: { type: "EpochStarted", epoch: 1 } },
    { record: { type: "StageStarted", stage: "sft" } },
  ]);
  await durability!.log.close();
}

function register(address: string): Promise<RegisterReply__Output | undefined> {
  const { membership, ...others } = openClients(address);
  const request = {
    ...{ role: "ROLE_ROLLOUT" as const, workerId: "r", host: "h", pid: 1, metricsAddress: "" },
    ...{ protocolVersion: PROTOCOL_VERSION, requestId: "1", position: null, machine: null },
  };
  return new Promise<RegisterReply__Output | undefined>((resolve) =>
    membership.register(request, { deadline: deadlineIn(CONTROL_DEADLINE_MS) }, (_error, reply) =>
      resolve(reply),
    ),
  ).finally(() => {
    for (const client of [membership, ...Object.values(others)]) client.close();
  });
}

it("the dashboard listens on loopback when the coordinator does not", async () => {
  const tokens = JoinTokens.read(writeToken());
  const config = configOf({ host: "0.0.0.0", insecure: true });
  const durability = await openDurability({
    ...{ config, runDir, standby: false, mayContinue: false, allowDrift: false },
    signal: stopping.signal,
  });
  const credentials = { tokens, tls: undefined };
  coordinator = await openCoordinator({
    ...{ config, runDir, durability: durability!, ...credentials },
    signal: stopping.signal,
  });
  endpoints = await openEndpoints(coordinator, {
    ...{ ...credentials, httpHost: undefined, admitWorker: undefined, isResumed: false },
  });
  const { httpAddress } = (await readCoordinatorFile(runDir))!;
  expect((await fetch(`${httpAddress}/healthz`)).status).toBe(200);
  // A wildcard address would be shown as loopback, and answer on all of 127.0.0.0/8.
  await expect(fetch(`${httpAddress.replace("127.0.0.1", "127.0.0.2")}/healthz`)).rejects.toThrow();
});

it("nobody joins before the epoch is open, however long the dashboard's port stays taken", async () => {
  const grpc = await takePort();
  await grpc.free();
  const http = await takePort();
  const config = configOf({ port: grpc.port, httpPort: http.port });
  await leaveRun(config);
  const durability = await openDurability({
    ...{ config, runDir, standby: false, mayContinue: true, allowDrift: false },
    signal: stopping.signal,
  });
  const credentials = { tokens: undefined, tls: undefined };
  coordinator = await openCoordinator({
    ...{ config, runDir, durability: durability!, ...credentials },
    signal: stopping.signal,
  });
  const opening = openEndpoints(coordinator, {
    ...{ ...credentials, httpHost: "127.0.0.1", admitWorker: undefined, isResumed: true },
  });
  let joined: RegisterReply__Output | undefined;
  while (joined === undefined) {
    joined = await register(`127.0.0.1:${grpc.port}`);
    if (joined === undefined) await sleep(20);
  }
  expect(joined.sender?.epoch).toBe(2);
  await http.free();
  endpoints = await opening;
});
