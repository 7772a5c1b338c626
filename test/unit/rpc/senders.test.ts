import { createHash } from "node:crypto";
import { readdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as grpc from "@grpc/grpc-js";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { AllReduceService } from "../../../src/coordinator/all-reduce-service.js";
import { createMetrics } from "../../../src/observability/metrics.js";
import { JoinTokens } from "../../../src/rpc/auth.js";
import { PROTOCOL_VERSION, troupe } from "../../../src/rpc/load-proto.js";
import { GuardedServer } from "../../../src/rpc/server.js";
import { RUN_ID, RawClient, startRealCoordinator, type RealCoordinator } from "./real-coordinator.js";

const { Membership, RolloutService, LearnerService, ArtifactService } = troupe.v1;
const TOKENS = { rollout: "a".repeat(64), learner: "b".repeat(64) };
const { OK, INVALID_ARGUMENT, PERMISSION_DENIED, FAILED_PRECONDITION } = grpc.status;

interface Sender {
  runId: string;
  epoch: number;
  workerId: string;
  incarnation: number;
}

let folder: string;
let tokens: JoinTokens;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "troupe-senders-"));
  const file = join(folder, "token");
  writeFileSync(file, `rollout ${TOKENS.rollout}\nlearner ${TOKENS.learner}\n`, { mode: 0o600 });
  tokens = JoinTokens.read(file);
});
afterAll(() => rmSync(folder, { recursive: true }));

describe("a worker speaks only for itself", () => {
  let coordinator: RealCoordinator;
  let clients: Record<keyof typeof TOKENS, RawClient>;
  let rollout: Sender;
  let learner: Sender;

  beforeEach(async () => {
    coordinator = await startRealCoordinator({ tokens, maxArtifactBytes: 1000 });
    clients = {
      rollout: new RawClient(coordinator.address, TOKENS.rollout),
      learner: new RawClient(coordinator.address, TOKENS.learner),
    };
    rollout = (await register("rollout", "ROLE_ROLLOUT", "rollout-0")).sender as Sender;
    learner = (await register("learner", "ROLE_LEARNER", "learner-0")).sender as Sender;
  });
  afterEach(async () => {
    for (const client of Object.values(clients)) client.close();
    await coordinator.close();
  });

  async function register(as: keyof typeof TOKENS, role: string, workerId: string, requestId?: string) {
    const { Register } = Membership.service;
    const request = {
      role,
      workerId,
      protocolVersion: PROTOCOL_VERSION,
      requestId: requestId ?? `${as} ${role} ${workerId}`,
    };
    const { code, replies } = await clients[as].call(Register.path, [
      Register.requestSerialize(request as never),
    ]);
    return {
      code,
      sender: code === OK ? (Register.responseDeserialize(replies[0]).sender as Sender) : undefined,
    };
  }

  const send = <Q>(as: keyof typeof TOKENS, method: grpc.MethodDefinition<Q, never>, ...messages: Q[]) =>
    clients[as].call(
      method.path,
      messages.map((message) => method.requestSerialize(message)),
    );
  const members = () =>
    [...coordinator.host.state.volatile.members.values()].map(({ workerId, role, incarnation }) => ({
      workerId,
      role,
      incarnation,
    }));

  test("it registers only in the role of its token, and takes nobody's name that way", async () => {
    const before = members();
    expect((await register("rollout", "ROLE_LEARNER", "learner-1")).code).toBe(PERMISSION_DENIED);
    expect((await register("rollout", "ROLE_LEARNER", "learner-0")).code).toBe(PERMISSION_DENIED);
    expect((await register("learner", "ROLE_ROLLOUT", "")).code).toBe(PERMISSION_DENIED);
    expect(members()).toEqual(before);
  });

  test("heartbeats and farewells of the other role's workers are refused", async () => {
    const before = members();
    const { Heartbeat, Leave } = Membership.service;
    for (const [as, sender] of [
      ["rollout", learner],
      ["learner", rollout],
    ] as const) {
      expect((await send(as, Heartbeat as never, { sender })).code).toBe(PERMISSION_DENIED);
      expect((await send(as, Leave as never, { sender })).code).toBe(PERMISSION_DENIED);
    }
    expect(members()).toEqual(before);
    expect((await send("rollout", Heartbeat as never, { sender: rollout })).code).toBe(OK);
  });

  test("the sender of a rollout stream is registered as a rollout, of a learner stream as a learner", async () => {
    const before = members();
    const asRollout = await send("rollout", RolloutService.service.Perform as never, {
      sender: learner,
      ready: { credits: 1 },
    });
    expect(asRollout).toMatchObject({
      code: PERMISSION_DENIED,
      details: expect.stringMatching(/learner-0 is registered as learner/) as string,
    });
    expect(
      (await send("learner", LearnerService.service.Perform as never, { sender: rollout, hello: {} })).code,
    ).toBe(PERMISSION_DENIED);
    expect(members()).toEqual(before);
  });

  test("an incarnation nobody was given does not push the real worker off its stream", async () => {
    const before = members();
    const sender = { ...rollout, incarnation: rollout.incarnation + 1000 };
    for (const [method, message] of [
      [RolloutService.service.Perform, { sender, ready: { credits: 1 } }],
      [Membership.service.Heartbeat, { sender }],
      [Membership.service.Leave, { sender }],
    ] as const)
      expect((await send("rollout", method as never, message)).code).toBe(FAILED_PRECONDITION);
    expect(members()).toEqual(before);
  });

  test("another run's worker is refused", async () => {
    const sender = { ...rollout, runId: "run-2" };
    const { code, details } = await send("rollout", Membership.service.Heartbeat as never, { sender });
    expect(code).toBe(FAILED_PRECONDITION);
    expect(details).toContain("belongs to another run");
  });

  describe("a file it hands in", () => {
    const bytes = Buffer.from("parameters");
    const ref = {
      name: "actor/1",
      sizeBytes: bytes.length,
      sha256: createHash("sha256").update(bytes).digest("hex"),
    };
    const publish = (as: keyof typeof TOKENS, sender: Sender, announced: object, ...data: Buffer[]) =>
      send(
        as,
        ArtifactService.service.Publish as unknown as grpc.MethodDefinition<object, never>,
        { sender, ref: { ...ref, ...announced } },
        ...data.map((piece) => ({ data: piece })),
      );
    const files = () =>
      readdirSync(coordinator.artifacts, { recursive: true, withFileTypes: true })
        .filter((entry) => entry.isFile())
        .map(({ name }) => name);

    test("is kept when it is what was announced", async () => {
      expect((await publish("learner", learner, {}, bytes)).code).toBe(OK);
      expect(files()).toEqual(["1.safetensors"]);
    });

    test("comes from a learner", async () => {
      expect((await publish("rollout", rollout, {}, bytes)).code).toBe(PERMISSION_DENIED);
      expect((await publish("learner", rollout, {}, bytes)).code).toBe(PERMISSION_DENIED);
      expect(files()).toEqual([]);
    });

    test("comes from a live one: nobody who is not registered, or was replaced", async () => {
      const stranger = { ...learner, workerId: "learner-9" };
      expect((await publish("learner", stranger, {}, bytes)).code).toBe(FAILED_PRECONDITION);
      const again = await register("learner", "ROLE_LEARNER", "learner-0", "again");
      expect((await publish("learner", learner, {}, bytes)).code).toBe(FAILED_PRECONDITION);
      expect(files()).toEqual([]);
      expect((await publish("learner", again.sender!, {}, bytes)).code).toBe(OK);
    });

    test("is refused by the size it announces, before a byte of it is written", async () => {
      for (const sizeBytes of [1001, 2 ** 50, 2 ** 64]) {
        const { code, details } = await publish("learner", learner, { sizeBytes }, Buffer.alloc(10));
        expect(code).toBe(INVALID_ARGUMENT);
        expect(details).toContain("cluster.maxArtifactBytes 1000");
      }
      expect(files()).toEqual([]);
    });

    test("may not be more, less or other than announced; nothing of it stays", async () => {
      const pieces = Array.from({ length: 200 }, () => Buffer.alloc(64));
      for (const data of [[bytes, bytes], [bytes.subarray(1)], [Buffer.from("Parameters")], pieces, []])
        expect((await publish("learner", learner, {}, ...data)).code).toBe(INVALID_ARGUMENT);
      expect(files()).toEqual([]);
    });

    test.each([
      "../escape",
      "/etc/passwd",
      "a/../../b",
      "a//b",
      ".hidden",
      "a\0b",
      "",
      "a/./b",
      "C:\\x",
      "%2e%2e/x",
    ])("is not stored under the name %j", async (name) => {
      expect((await publish("learner", learner, { name }, bytes)).code).toBe(INVALID_ARGUMENT);
      const fetched = await send("learner", ArtifactService.service.Fetch as never, {
        sender: learner,
        name,
      });
      expect(fetched).toMatchObject({ code: INVALID_ARGUMENT, replies: [] });
      expect(files()).toEqual([]);
    });
  });
});

describe("the header of an all-reduce", () => {
  const members = [
    { workerId: "learner-0", incarnation: 1, firstShard: 0, shardCount: 2 },
    { workerId: "learner-1", incarnation: 2, firstShard: 2, shardCount: 2 },
  ];
  const honest = {
    sender: { runId: RUN_ID, epoch: 1, workerId: "learner-0", incarnation: 1 },
    ...{ generation: 3, step: 5, nodes: [{ level: 1, index: 0 }], elementCount: 8, bucketElements: 4 },
  };
  let server: GuardedServer;
  let client: RawClient;
  let failures: { workerId: string | null }[];

  beforeEach(async () => {
    failures = [];
    const service = new AllReduceService({
      ...{
        runId: RUN_ID,
        wire: "f32" as const,
        bucketTimeoutMs: 30_000,
        metrics: createMetrics("coordinator"),
      },
      onFailed: (failure) => failures.push(failure),
    });
    service.open(3, 5, 4, members as never);
    server = new GuardedServer();
    server.addService(LearnerService.service, {
      AllReduce: service.handle,
      Perform: () => undefined,
    } as never);
    const port = await new Promise<number>((resolve, reject) =>
      server.bindAsync("127.0.0.1:0", grpc.ServerCredentials.createInsecure(), (error, bound) =>
        error ? reject(error) : resolve(bound),
      ),
    );
    client = new RawClient(`127.0.0.1:${port}`);
  });
  afterEach(() => {
    client.close();
    server.forceShutdown();
  });

  const { AllReduce } = LearnerService.service;
  const join = (header: object, patienceMs = 10_000) =>
    client.call(
      AllReduce.path,
      [AllReduce.requestSerialize({ header: { ...honest, ...header } })],
      patienceMs,
    );

  test("that is honest is taken: the stream waits for the others", async () => {
    expect((await join({}, 300)).code).toBe(grpc.status.DEADLINE_EXCEEDED);
  });

  test.each([
    ["a gradient of petabytes", { elementCount: 2 ** 52 }, /element_count/],
    ["more buckets than any gradient has", { elementCount: 70_000, bucketElements: 1 }, /element_count/],
    ["no elements", { elementCount: 0 }, /element_count/],
    ["no bucket size", { bucketElements: 0 }, /bucket_elements/],
    ["a bucket larger than a message", { bucketElements: (2 << 20) / 4 + 1 }, /bucket_elements/],
    ["a node over another member's shards", { nodes: [{ level: 0, index: 2 }] }, /covers others/],
    ["a node over everybody's shards", { nodes: [{ level: 2, index: 0 }] }, /covers others/],
    ["a level outside any tree", { nodes: [{ level: 4_000_000_000, index: 0 }] }, /covers others/],
    ["a worker that is no member", { sender: { ...honest.sender, workerId: "learner-9" } }, /not a member/],
    ["another generation", { generation: 2 }, /not open/],
  ])("that announces %s is refused", async (_what, header, reason) => {
    const { code, details } = await join(header);
    expect([INVALID_ARGUMENT, FAILED_PRECONDITION, grpc.status.CANCELLED]).toContain(code);
    expect(details).toMatch(reason);
  });
});
