import { Metadata } from "@grpc/grpc-js";
import { expect, it } from "vitest";
import { configSchema } from "../../../src/config/schema.js";
import { makeMembershipService } from "../../../src/coordinator/membership-service.js";
import type { PublishedEvent } from "../../../src/observability/progress.js";
import { RUN_ID, openStage, settle } from "./rollout-stage.js";

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
      service.Heartbeat({ request: { sender, progress: 0 }, metadata } as never, (_, reply) =>
        resolve(reply),
      ),
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
