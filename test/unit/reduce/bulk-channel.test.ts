import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { connect, createServer, type AddressInfo, type Server, type Socket } from "node:net";
import { afterEach, describe, expect, it } from "vitest";
import { BulkExchange } from "../../../src/learner/bulk-exchange.js";
import type { GradientNode } from "../../../src/learner/gradient-sync.js";
import { TotalGradient, type ReducedGradient } from "../../../src/learner/total-gradient.js";
import { subtreesOf, TreeSum } from "../../../src/learner/tree-sum.js";
import { BulkServer } from "../../../src/reduce/bulk-server.js";
import { digestOf } from "../../../src/kernels/gradient-kernels.js";
import { writeHeader } from "../../../src/reduce/bulk-frame.js";
import { Reduction, type ReductionFailure } from "../../../src/reduce/reduction.js";
import type { WireFormat } from "../../../src/rpc/codec/gradient.js";
import type { Exchange__Output } from "../../../src/rpc/generated/troupe/v1/Exchange.js";

const SHARDS = 4;
const ELEMENTS = 5000;
const BUCKET = 512;

const shardOf = (shard: number): Float32Array =>
  Float32Array.from({ length: ELEMENTS }, (_, i) => Math.sin(i * (shard + 1)) * 10 ** (shard - 2));

function nodesOf(first: number, count: number, wire: WireFormat): GradientNode[] {
  const sum = new TreeSum(wire);
  for (let i = first; i < first + count; i++) sum.push({ level: 0, index: i, values: shardOf(i) });
  return count === 0
    ? []
    : sum.nodes.map(({ level, index, values }) => ({ level, index, gradients: values }));
}

interface Cluster {
  readonly learners: number;
  readonly wire: WireFormat;
  readonly topology: "star" | "sharded";
  readonly isEncrypted: boolean;
}

const closing: (() => void)[] = [];
afterEach(() => {
  for (const close of closing.splice(0)) close();
});

it("without an address of its own a server is reached over IPv4, whether the machine has IPv6 or not", async () => {
  const server = await BulkServer.listen({ host: undefined, port: 0, isEncrypted: false });
  closing.push(() => server.close());
  const socket = connect(server.port, "127.0.0.1");
  closing.push(() => socket.destroy());
  await once(socket, "connect");
});

/** A coordinator's server and L learners, in this process, over real sockets. */
async function start(
  { learners, wire, topology, isEncrypted }: Cluster,
  { dialTimeoutMs, admitWithinMs }: { dialTimeoutMs?: number; admitWithinMs?: number } = {},
) {
  const failures: ReductionFailure[] = [];
  const onFailed = (failure: ReductionFailure) => void failures.push(failure);
  const listen = async () => {
    const server = await BulkServer.listen({ host: "127.0.0.1", port: 0, isEncrypted, admitWithinMs });
    closing.push(() => server.close());
    return server;
  };
  const hub = await listen();
  const common = { wire, bucketTimeoutMs: 60_000, onBytes: () => undefined, onFailed };
  const nodes = await Promise.all(
    Array.from({ length: learners }, async (_, i) => {
      const server = topology === "sharded" ? await listen() : undefined;
      const workerId = `learner-${i}`;
      const options = {
        ...{ ...common, workerId, bucketElements: BUCKET, coordinatorHost: "127.0.0.1", dialTimeoutMs },
      };
      const exchange = new BulkExchange(options, server);
      closing.push(() => exchange.close());
      return { workerId, server, exchange };
    }),
  );
  const each = Math.floor(SHARDS / learners);
  const contributors = nodes.map(({ workerId }, i) => {
    const extra = SHARDS % learners;
    return { workerId, firstShard: i * each + Math.min(i, extra), shardCount: each + (i < extra ? 1 : 0) };
  });

  function arrange(step: number, secret = randomBytes(32)): Exchange__Output {
    if (topology === "star") {
      const key = { generation: step, step, shardCount: SHARDS, members: contributors };
      hub.open({ reduction: new Reduction({ ...common, ...key }), secret });
    }
    const reducers =
      topology === "star"
        ? [{ workerId: "", host: "", port: hub.port }]
        : nodes.map(({ workerId, server }) => ({ workerId, host: "127.0.0.1", port: server!.port }));
    return { reducers, secret, isEncrypted, contributors };
  }

  async function reduceAt(i: number, step: number, exchange: Exchange__Output, signal: AbortSignal) {
    const key = { generation: step, step };
    const { firstShard, shardCount } = contributors[i];
    const mine = nodesOf(firstShard, shardCount, wire);
    expect(mine.map(({ level, index }) => ({ level, index }))).toEqual(
      shardCount === 0 ? [] : subtreesOf(firstShard, firstShard + shardCount - 1),
    );
    const total = new TotalGradient(mine[0]?.gradients ?? new Float32Array(ELEMENTS), BUCKET, wire);
    nodes[i].exchange.open(key, SHARDS, exchange);
    await nodes[i].exchange.run(key, mine, total, ELEMENTS, exchange, signal);
    return total.result();
  }
  return { hub, nodes, failures, arrange, reduceAt };
}

const expected = (wire: WireFormat): Float32Array => {
  const sum = new TreeSum(wire);
  for (let i = 0; i < SHARDS; i++) sum.push({ level: 0, index: i, values: shardOf(i) });
  return sum.total(SHARDS);
};
const never = new AbortController().signal;

describe("the bulk channel", { timeout: 60_000 }, () => {
  const cases = (["star", "sharded"] as const).flatMap((topology) =>
    (["f32", "bf16"] as const).flatMap((wire) =>
      [1, 2, 3, 4, 5].map((learners) => ({ topology, wire, learners, isEncrypted: learners === 3 })),
    ),
  );
  it.each(cases)(
    "gives the tree's sum: $topology, $wire, $learners learners, encrypted $isEncrypted",
    async (cluster) => {
      const { arrange, reduceAt, failures } = await start(cluster);
      const hashes = new Set<number>();
      // The second step goes over the connections of the first one.
      for (const step of [1, 2]) {
        const exchange = arrange(step);
        const sums: ReducedGradient[] = await Promise.all(
          Array.from({ length: cluster.learners }, (_, i) => reduceAt(i, step, exchange, never)),
        );
        for (const { values, hash, isFinite } of sums) {
          expect(values).toEqual(expected(cluster.wire));
          expect(isFinite).toBe(true);
          hashes.add(hash);
        }
      }
      expect(hashes.size).toBe(1);
      expect(failures).toEqual([]);
    },
  );

  it.each(["star", "sharded"] as const)(
    "%s: when a learner is lost in the middle all others fail, it is blamed, and the next generation works",
    async (topology) => {
      const { arrange, reduceAt, failures } = await start({
        learners: 3,
        wire: "f32",
        topology,
        isEncrypted: false,
      });
      const exchange = arrange(1);
      const lost = new AbortController();
      const victim = reduceAt(2, 1, exchange, lost.signal);
      const others = [reduceAt(0, 1, exchange, never)]; // learner 1 still computes: the step is in the middle
      await new Promise((resolve) => setTimeout(resolve, 200));
      lost.abort(new Error("killed"));
      const outcomes = await Promise.allSettled([victim, ...others]);
      expect(outcomes.map(({ status }) => status)).toEqual(["rejected", "rejected"]);
      expect(failures.map(({ workerId }) => workerId)).toContain("learner-2");
      const again = arrange(2);
      const sums = await Promise.all([0, 1, 2].map((i) => reduceAt(i, 2, again, never)));
      for (const { values } of sums) expect(values).toEqual(expected("f32"));
    },
  );

  it.each([false, true])(
    "lets nobody in without the generation's secret (encrypted: %s)",
    async (isEncrypted) => {
      const { arrange, reduceAt, failures } = await start(
        { learners: 2, wire: "f32", topology: "star", isEncrypted },
        { dialTimeoutMs: 300 },
      );
      const exchange = arrange(1);
      await expect(reduceAt(0, 1, { ...exchange, secret: randomBytes(32) }, never)).rejects.toThrow(
        isEncrypted ? /bulk channel/ : /wrong secret/,
      );
      expect(failures).toEqual([]);
      // Nor with that of a generation that is over.
      arrange(2);
      await expect(reduceAt(0, 1, exchange, never)).rejects.toThrow();
    },
  );

  it("closes on a stranger that announces more than a note", async () => {
    const { hub, failures } = await start({ learners: 1, wire: "f32", topology: "star", isEncrypted: false });
    for (const length of [1 << 30, 0]) {
      for (const kind of [1, 2, 3, 77]) {
        if (kind === 1 && length === 0) continue;
        const socket = connect(hub.port, "127.0.0.1");
        socket.on("error", () => undefined);
        socket.write(writeHeader({ kind, node: 0, bucket: 0, length, checksum: 0 }));
        await new Promise((resolve) => socket.once("close", resolve));
      }
    }
    expect(failures).toEqual([]);
  });

  const cluster = { wire: "f32", isEncrypted: false } as const;

  it("lets a member wait whose reducer is not there yet, over as many connections as that takes", async () => {
    const { arrange, reduceAt, nodes, failures } = await start(
      { ...cluster, learners: 2, topology: "sharded" },
      { admitWithinMs: 50 },
    );
    const exchange = arrange(1);
    const early = reduceAt(0, 1, exchange, never);
    let dialled = 0;
    const { server } = nodes[1].server as unknown as { server: Server };
    const several = new Promise<void>((resolve) =>
      server.on("connection", () => {
        dialled += 1;
        if (dialled === 3) resolve();
      }),
    );
    await several;
    const [a, b] = await Promise.all([early, reduceAt(1, 1, exchange, never)]);
    expect(a.values).toEqual(expected("f32"));
    expect(b.hash).toBe(a.hash);
    expect(failures).toEqual([]);
  });

  it.each([
    ["refuses connections", false],
    ["takes them and stays silent", true],
  ])("a learner whose peer %s says so, long before the step is over", async (_, isSilent) => {
    const { arrange, reduceAt, failures } = await start(
      { wire: "f32", learners: 2, topology: "sharded", isEncrypted: isSilent },
      { dialTimeoutMs: 300 },
    );
    const exchange = arrange(1);
    const deaf = createServer();
    await new Promise<void>((resolve) => deaf.listen(0, "127.0.0.1", resolve));
    const { port } = deaf.address() as AddressInfo;
    if (isSilent) closing.push(() => deaf.close());
    else await new Promise((resolve) => deaf.close(resolve));
    const reducers = [exchange.reducers[0], { ...exchange.reducers[1], port }];
    await expect(reduceAt(0, 1, { ...exchange, reducers }, never)).rejects.toMatchObject({
      code: "UNREACHABLE",
    });
    expect(failures).toMatchObject([{ generation: 1, step: 1, workerId: "learner-1" }]);
  });

  it("a learner whose open connection leads nowhere dials again, and says when that does not help", async () => {
    const { arrange, reduceAt, failures } = await start(
      { ...cluster, learners: 2, topology: "sharded" },
      { dialTimeoutMs: 300 },
    );
    const exchange = arrange(1);
    const taken: Socket[] = [];
    const mute = createServer((socket) => {
      taken.push(socket);
      if (taken.length === 2) mute.close(); // the third time nobody is there
    });
    await new Promise<void>((resolve) => mute.listen(0, "127.0.0.1", resolve));
    const { port } = mute.address() as AddressInfo;
    const reducers = [exchange.reducers[0], { ...exchange.reducers[1], port }];
    await expect(reduceAt(0, 1, { ...exchange, reducers }, never)).rejects.toMatchObject({
      code: "UNREACHABLE",
    });
    expect(taken.length).toBeGreaterThan(0);
    expect(failures).toMatchObject([{ workerId: "learner-1" }]);
    for (const socket of taken) socket.destroy();
  });

  it.each([false, true])(
    "puts out who shows no secret in time, whatever it claims, encrypted %s",
    async (isEncrypted) => {
      const { hub, failures } = await start(
        { wire: "f32", learners: 1, topology: "star", isEncrypted },
        { admitWithinMs: 100 },
      );
      const note = Buffer.from(
        JSON.stringify({
          ...{ secret: "00", workerId: "learner-0", generation: 2 ** 40, step: 1, nodes: [] },
          ...{ elementCount: 1, bucketElements: 1 },
        }),
      );
      const { checksum } = digestOf(note);
      const head = writeHeader({ kind: 1, node: 0, bucket: 0, length: note.length, checksum });
      for (const bytes of [Buffer.alloc(0), Buffer.concat([head, note])]) {
        const socket = connect(hub.port, "127.0.0.1");
        socket.on("error", () => undefined);
        socket.resume();
        if (bytes.length > 0) socket.write(bytes);
        await new Promise((resolve) => socket.once("close", resolve));
      }
      expect(failures).toEqual([]);
    },
  );

  it("takes no more strangers of one address than leave room for members", async () => {
    const { hub, arrange, reduceAt } = await start({ ...cluster, learners: 1, topology: "star" });
    const sockets = Array.from({ length: 300 }, () => connect(hub.port, "127.0.0.1"));
    let closed = 0;
    const tooMany = new Promise<void>((resolve) => {
      for (const socket of sockets) {
        socket.on("error", () => undefined);
        socket.once("close", () => {
          closed += 1;
          if (closed === 300 - 256) resolve();
        });
      }
    });
    await tooMany;
    expect(sockets.filter(({ destroyed }) => !destroyed)).toHaveLength(256);
    for (const socket of sockets) socket.destroy();
    const { values } = await reduceAt(0, 1, arrange(1), never);
    expect(values).toEqual(expected("f32"));
  });
});
