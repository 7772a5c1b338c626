import * as grpc from "@grpc/grpc-js";
import { afterEach, describe, expect, it } from "vitest";
import { AllReduceService } from "../../../src/coordinator/all-reduce-service.js";
import { GradientSync, type GradientNode } from "../../../src/learner/gradient-sync.js";
import { TreeSum } from "../../../src/learner/tree-sum.js";
import { createMetrics } from "../../../src/observability/metrics.js";
import { BulkServer } from "../../../src/reduce/bulk-server.js";
import type { ReductionFailure } from "../../../src/reduce/reduction.js";
import type { WireFormat } from "../../../src/rpc/codec/gradient.js";
import type { GradientChunk__Output } from "../../../src/rpc/generated/troupe/v1/GradientChunk.js";
import { startRpcServer } from "../../../src/rpc/server.js";
import { openClients } from "../../../src/worker/coordinator-link.js";
import type { TroupeError } from "../../../src/shared/errors.js";

const RUN = "run-of-the-test";
/** Three buckets, the last one short. */
const ELEMENTS = 2.5 * 2 ** 18;
const never = new AbortController().signal;

function shardOf(shard: number): Float32Array {
  const values = new Float32Array(ELEMENTS);
  for (let i = 0; i < ELEMENTS; i++) values[i] = ((i * (shard + 3)) % 1013) / 1013 - 0.4;
  return values;
}

const nodeOf = (shard: number, wire: WireFormat): GradientNode => {
  const sum = new TreeSum(wire);
  sum.push({ level: 0, index: shard, values: shardOf(shard) });
  const [{ level, index, values }] = sum.nodes;
  return { level, index, gradients: values };
};

const expected = (learners: number, wire: WireFormat): Float32Array => {
  const sum = new TreeSum(wire);
  for (let i = 0; i < learners; i++) sum.push({ level: 0, index: i, values: shardOf(i) });
  return sum.total(learners);
};

const closing: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

/** @param isGeneric what is below a call is out of reach, as with a release of grpc-js that hides it */
async function start(learners: number, wire: WireFormat, isGeneric = false) {
  const failures: ReductionFailure[] = [];
  const service = new AllReduceService({
    ...{ runId: RUN, wire, bucketTimeoutMs: 60_000, metrics: createMetrics("coordinator") },
    onFailed: (failure) => void failures.push(failure),
  });
  type Call = Parameters<typeof service.handle>[0];
  const handle = (call: Call): void => {
    if (!isGeneric) return service.handle(call);
    interface Hidden {
      nextCall?: Hidden;
      maybeSendMetadata?: unknown;
    }
    let base = (call as unknown as { call: Hidden }).call;
    while (base.nextCall !== undefined) base = base.nextCall;
    base.maybeSendMetadata = undefined;
    service.handle(call);
    delete base.maybeSendMetadata;
  };
  const none = {} as never;
  const server = await startRpcServer(
    {
      ...{ membership: none, rollout: none, artifact: none, control: none },
      learner: { AllReduce: handle, Perform: () => undefined },
    },
    { host: "127.0.0.1", port: 0, tokens: undefined, onRefused: () => undefined },
  );
  closing.push(() => server.close(0));
  const members = Array.from({ length: learners }, (_, i) => ({
    ...{ workerId: `learner-${i}`, incarnation: 1, rank: i, firstShard: i, shardCount: 1 },
  }));
  const open = (step: number) => service.open(step, step, learners, members);
  const learner = (i: number, timeoutMs = 60_000) => {
    const clients = openClients(server.address);
    closing.push(() => Object.values(clients).forEach((client: { close(): void }) => client.close()));
    const sender = { runId: RUN, epoch: 1, workerId: `learner-${i}`, incarnation: 1 };
    const sync = new GradientSync(clients, sender, { wire, onBytes: () => undefined });
    const reduce = (step: number, signal = never) =>
      sync.allReduce({ generation: step, step, timeLimitMs: timeoutMs }, [nodeOf(i, wire)], ELEMENTS, signal);
    return { clients, sender, reduce };
  };
  return { service, open, learner, failures };
}

describe("who sums", () => {
  it.each(["auto", "sharded"] as const)("%s: the learners, once all of them can be reached", (topology) => {
    const addresses = new Map<string, { host: string; port: number }>();
    const service = new AllReduceService({
      ...{ runId: RUN, wire: "f32", bucketTimeoutMs: 60_000, metrics: createMetrics("coordinator") },
      ...{ topology, bulkAddressOf: (workerId) => addresses.get(workerId), onFailed: () => undefined },
    });
    const members = ["a", "b"].map((workerId, i) => ({
      ...{ workerId, incarnation: 1, rank: i, firstShard: i, shardCount: 1 },
    }));
    addresses.set("a", { host: "127.0.0.1", port: 1 });
    expect(service.open(1, 1, 2, members)).toBeUndefined();
    addresses.set("b", { host: "127.0.0.1", port: 2 });
    const reducers = service.open(2, 2, 2, members)?.reducers;
    expect(reducers?.map(({ workerId }) => workerId)).toEqual(["a", "b"]);
    service.close("the test is over");
  });
});

describe("who sums after a link was broken", () => {
  const members = (incarnations: readonly number[]) =>
    incarnations.map((incarnation, i) => ({
      ...{ workerId: `learner-${i}`, incarnation, rank: i, firstShard: i, shardCount: 1 },
    }));

  it("the coordinator, for as long as both ends of it are members", async () => {
    const service = new AllReduceService({
      ...{ runId: RUN, wire: "f32", bucketTimeoutMs: 60_000, metrics: createMetrics("coordinator") },
      ...{ topology: "sharded", bulkAddressOf: () => ({ host: "h", port: 1 }), onFailed: () => undefined },
    });
    closing.push(() => service.close("the test is over"));
    const isSharded = (step: number, incarnations: readonly number[]) =>
      service.open(step, step, 4, members(incarnations)) !== undefined;
    expect(isSharded(1, [1, 2, 3])).toBe(true);
    expect(service.noteBrokenLink("learner-0", "learner-1")).toBe(true);
    expect(service.noteBrokenLink("learner-1", "learner-0")).toBe(false);
    expect(service.noteBrokenLink("learner-0", "stranger")).toBe(false);
    expect(isSharded(2, [1, 2, 3])).toBe(false);
    expect(isSharded(3, [1, 4, 3])).toBe(true); // learner-1 is another process, or connected anew
    expect(service.noteBrokenLink("learner-0", "")).toBe(false); // there is no bulk channel to go round
  });

  it("through the AllReduce call, when it is the coordinator's bulk channel that is out of reach", async () => {
    const bulk = await BulkServer.listen({ host: "127.0.0.1", port: 0, isEncrypted: false });
    closing.push(() => bulk.close());
    const service = new AllReduceService({
      ...{ runId: RUN, wire: "f32", bucketTimeoutMs: 60_000, metrics: createMetrics("coordinator") },
      ...{ topology: "star", bulk, onFailed: () => undefined },
    });
    closing.push(() => service.close("the test is over"));
    expect(service.open(1, 1, 2, members([1, 2]))).toBeDefined();
    expect(service.noteBrokenLink("learner-1", "")).toBe(true);
    expect(service.open(2, 2, 2, members([1, 2]))).toBeUndefined();
    expect(service.open(3, 3, 2, members([1]))).toBeDefined();
  });
});

describe("the AllReduce call", { timeout: 60_000 }, () => {
  it.each([
    ["f32", 2, false],
    ["bf16", 2, false],
    ["f32", 4, false],
    ["f32", 2, true],
    ["bf16", 2, true],
  ] as const)("gives the tree's sum: %s, %d learners, generic server %s", async (wire, count, isGeneric) => {
    const { open, learner, failures } = await start(count, wire, isGeneric);
    const learners = Array.from({ length: count }, (_, i) => learner(i));
    for (const step of [1, 2]) {
      open(step);
      const sums = await Promise.all(learners.map(({ reduce }) => reduce(step)));
      for (const { values, isFinite } of sums) {
        expect(Buffer.from(values.buffer).equals(Buffer.from(expected(count, wire).buffer))).toBe(true);
        expect(isFinite).toBe(true);
      }
      expect(new Set(sums.map(({ hash }) => hash)).size).toBe(1);
    }
    expect(failures).toEqual([]);
  });

  it("serves a client that speaks plain protobuf", async () => {
    const { open, learner, failures } = await start(2, "f32");
    open(1);
    const [plain, ours] = [learner(0), learner(1)];
    const call = plain.clients.learner.allReduce();
    const bucketElements = 2 ** 18;
    const header = { sender: plain.sender, generation: 1, step: 1, elementCount: ELEMENTS, bucketElements };
    call.write({ header: { ...header, nodes: [{ level: 0, index: 0 }] } });
    const mine = Buffer.from(shardOf(0).buffer);
    for (let bucket = 0; bucket < 3; bucket++)
      call.write({ bucket: { node: 0, bucket, values: mine.subarray(bucket << 20, (bucket + 1) << 20) } });
    call.end();
    const got = Buffer.alloc(mine.length);
    const reading = (async () => {
      for await (const message of call as AsyncIterable<GradientChunk__Output>)
        got.set(message.bucket!.values, message.bucket!.bucket << 20);
    })();
    const { values } = await ours.reduce(1);
    await reading;
    expect(got.equals(Buffer.from(values.buffer))).toBe(true);
    expect(failures).toEqual([]);
  });

  it("tells the members why it ended, and the next generation works", async () => {
    const { service, open, learner, failures } = await start(2, "f32");
    const [a, b] = [learner(0), learner(1)];
    open(1);
    const alone = a.reduce(1);
    const ending = expect(alone).rejects.toMatchObject({
      code: "CANCELLED",
      message: expect.stringContaining("the step was given up: ü") as string,
    });
    await new Promise((resolve) => setTimeout(resolve, 50));
    service.close("the step was given up: ü");
    await ending;
    await expect(b.reduce(1)).rejects.toMatchObject({ code: "CANCELLED" });
    open(2);
    const [x, y] = await Promise.all([a.reduce(2), b.reduce(2)]);
    expect(x.hash).toBe(y.hash);
    expect(failures).toEqual([]);
  });

  it("blames a learner whose call is given up in the middle", async () => {
    const { open, learner, failures } = await start(2, "f32");
    const [a, b] = [learner(0), learner(1)];
    open(1);
    const abort = new AbortController();
    const left = a.reduce(1, abort.signal).catch((error: TroupeError) => error.code);
    await new Promise((resolve) => setTimeout(resolve, 50));
    abort.abort();
    expect(await left).toBe("CANCELLED");
    await expect(b.reduce(1)).rejects.toMatchObject({ code: "CANCELLED" });
    expect(failures).toMatchObject([{ generation: 1, step: 1, workerId: "learner-0" }]);
  });

  it("ends in time when nobody else comes, and at once when nobody is there", async () => {
    const { open, learner } = await start(2, "f32");
    open(1);
    await expect(learner(0, 100).reduce(1)).rejects.toMatchObject({ code: "UNREACHABLE" });
    const gone = openClients("127.0.0.1:1");
    closing.push(() => Object.values(gone).forEach((client: { close(): void }) => client.close()));
    const sync = new GradientSync(gone, {}, { wire: "f32", onBytes: () => undefined });
    const key = { generation: 1, step: 1, timeLimitMs: 60_000 };
    const lonely = sync.allReduce(key, [nodeOf(0, "f32")], ELEMENTS, never);
    await expect(lonely).rejects.toMatchObject({ code: "UNREACHABLE" });
  });

  it("answers other statuses as gRPC does", async () => {
    const { open, learner } = await start(1, "f32");
    open(1);
    const stranger = learner(7);
    await expect(stranger.reduce(1)).rejects.toMatchObject({ code: "FENCED" });
    const call = stranger.clients.learner.allReduce();
    call.end();
    const error = await new Promise<grpc.ServiceError>((resolve) => {
      call.on("error", resolve);
      call.resume();
    });
    expect(error.code).toBe(grpc.status.INVALID_ARGUMENT);
  });
});
