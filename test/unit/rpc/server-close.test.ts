import * as grpc from "@grpc/grpc-js";
import { expect, it } from "vitest";
import { openClients } from "../../../src/worker/coordinator-link.js";
import { RUN_ID, startRealCoordinator } from "./real-coordinator.js";

it("a server that closes ends the calls that their callers keep open", async () => {
  const coordinator = await startRealCoordinator();
  const { members } = coordinator.host.state.volatile;
  const workerId = "rollout-0";
  const registration = {
    workerId,
    role: "rollout",
    requestId: "1",
    position: null,
    policyVersion: -1,
  } as const;
  coordinator.host.dispatch({ type: "WorkerRegistered", ...registration });
  const { incarnation } = members.get(workerId)!;
  const clients = openClients(coordinator.address);
  const call = clients.rollout.perform();
  const ended = new Promise<grpc.ServiceError>((resolve) => call.on("error", resolve));
  call.on("data", () => undefined);
  call.write({ sender: { runId: RUN_ID, epoch: 1, workerId, incarnation }, ready: { credits: 2 } });
  await expect.poll(() => members.get(workerId)?.credits).toBe(2);
  await coordinator.close();
  expect((await ended).code).toBeOneOf([grpc.status.CANCELLED, grpc.status.UNAVAILABLE]);
  for (const client of Object.values(clients)) (client as { close(): void }).close();
}, 10_000);
