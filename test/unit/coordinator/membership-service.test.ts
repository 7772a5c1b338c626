import { Metadata } from "@grpc/grpc-js";
import { expect, it } from "vitest";
import { PROTOCOL_VERSION } from "../../../src/rpc/load-proto.js";
import { configSchema } from "../../../src/config/schema.js";
import { makeMembershipService } from "../../../src/coordinator/membership-service.js";
import type { PublishedEvent } from "../../../src/observability/progress.js";
import { BRIEF, RUN_ID, openStage, promptsOf, settle } from "./rollout-stage.js";

it("what a worker tells of its tasks keeps them from being given away", async () => {
  const stage = await openStage();
  const { host, directory, metrics } = stage;
  const config = configSchema.parse({ data: { path: "rows.jsonl" } });
  const service = makeMembershipService({
    ...{ host, directory, metrics, config, runId: RUN_ID },
    isOver: () => false,
  });
  const metadata = new Metadata();
  metadata.set("troupe-caller-roles", "rollout");
  await stage.join("rollout-0");
  void stage.dispatcher.collect(0, promptsOf(0, 2), 0, BRIEF, new AbortController().signal);
  await settle();
  const { incarnation } = host.state.volatile.members.get("rollout-0")!;
  const [lease] = host.state.volatile.tasks.get("collect/0#0")!.leases;
  const before = lease.expiresAtMs;
  const sender = { runId: RUN_ID, workerId: "rollout-0", incarnation };
  const tasks = [{ taskId: "collect/0#0", attempt: 1, tokens: 12 }];
  await new Promise((resolve) =>
    service.Heartbeat({ request: { sender, tasks }, metadata } as never, (_, reply) => resolve(reply)),
  );
  expect(lease.progress).toBe(12);
  expect(lease.expiresAtMs).toBeGreaterThan(before);
  await stage.close();
});

it("calls that are repeated before they were answered are all answered, and those of others by their own name", async () => {
  const stage = await openStage();
  const { host, directory, metrics } = stage;
  const config = configSchema.parse({ data: { path: "rows.jsonl" } });
  const service = makeMembershipService({
    ...{ host, directory, metrics, config, runId: RUN_ID },
    isOver: () => false,
  });
  const metadata = new Metadata();
  metadata.set("troupe-caller-roles", "rollout");
  const answers: string[] = [];
  const register = (workerId: string) => {
    const request = { role: "ROLE_ROLLOUT", workerId, requestId: "same", protocolVersion: PROTOCOL_VERSION };
    const call = {
      request: { ...request, host: "h", pid: 1, metricsAddress: "h:1", position: null, machine: null },
      metadata,
    };
    service.Register(call as never, (error, reply) => answers.push(reply?.sender?.workerId ?? String(error)));
  };
  stage.log.hold();
  host.dispatch({ type: "IterationStarted", iteration: 0, promptCursor: 0 }); // what follows waits for the disk
  for (const workerId of ["rollout-0", "rollout-0", "rollout-1"]) register(workerId);
  stage.log.release();
  await host.settled();
  expect(answers.sort()).toEqual(["rollout-0", "rollout-0", "rollout-1"]);
  await stage.close();
});

it("a worker that was let go is not told as lost, whatever it still sends", async () => {
  const stage = await openStage();
  const { host, directory, metrics } = stage;
  const config = configSchema.parse({ data: { path: "rows.jsonl" } });
  const told: PublishedEvent[] = [];
  stage.bus.subscribe((event) => told.push(event));
  const service = makeMembershipService({
    ...{ host, directory, metrics, config, runId: RUN_ID },
    isOver: () => false,
  });
  const metadata = new Metadata();
  metadata.set("troupe-caller-roles", "rollout"); // what the guard leaves for the handlers
  const beat = (sender: object) =>
    new Promise<unknown>((resolve) =>
      service.Heartbeat({ request: { sender, tasks: [] }, metadata } as never, (_, reply) => resolve(reply)),
    );
  const stream = await stage.join("rollout-0");
  const { incarnation } = host.state.volatile.members.get("rollout-0")!;
  const worker = { workerId: "rollout-0", incarnation, role: "rollout" } as const;
  directory.join({ ...worker, host: "here", pid: 1, metricsAddress: "" });
  const sender = { runId: RUN_ID, workerId: "rollout-0", incarnation };
  expect(await beat(sender)).toEqual({ directive: "CONTINUE", ready: true });
  stream.say({ draining: {} });
  await settle();
  expect(await beat(sender)).toEqual({ directive: "REGISTER_AGAIN", ready: false });
  expect(directory.list()).toEqual([]);
  expect(told.filter(({ type }) => type === "worker-lost")).toEqual([]);
  await stage.close();
});
