/** The first model's gradient travels while that of the second is computed. */
import { afterEach, describe, expect, it } from "vitest";
import { AllReduceService } from "../../../src/coordinator/all-reduce-service.js";
import { hostMemory } from "../../../src/engine/host-arena.js";
import { BulkExchange } from "../../../src/learner/bulk-exchange.js";
import { BUCKET_ELEMENTS, GradientSync } from "../../../src/learner/gradient-sync.js";
import {
  LearnerCompute,
  type GradientNode,
  type ShardsRequest,
} from "../../../src/learner/learner-compute.js";
import { optimizerStep, type StepDependencies } from "../../../src/learner/optimizer-step.js";
import { ShardGradients } from "../../../src/learner/shard-gradients.js";
import { denominatorOf } from "../../../src/learner/shards.js";
import { TreeSum } from "../../../src/learner/tree-sum.js";
import { createMetrics } from "../../../src/observability/metrics.js";
import { BulkServer } from "../../../src/reduce/bulk-server.js";
import type { WireFormat } from "../../../src/rpc/codec/gradient.js";
import type { Exchange__Output } from "../../../src/rpc/generated/troupe/v1/Exchange.js";
import { startRpcServer } from "../../../src/rpc/server.js";
import { makeDeferred, sleep, type Deferred } from "../../../src/shared/abort.js";
import { openClients } from "../../../src/worker/coordinator-link.js";
import { ppoRows, ppoSettings, shardsOf } from "./fixtures.js";

const LEARNERS = 2;
const RUN = "run-of-the-test";
/** Two buckets and a half of the first model, as many of the second: one bucket has elements of both. */
const FIRST = 2.5 * BUCKET_ELEMENTS;
const ELEMENTS = 2 * FIRST;

type Route = "the call" | "bulk" | "sharded";

const valueOf = (shard: number, i: number): number => ((i * (shard + 3)) % 1013) / 1013 - 0.4;
const treeOf = (shards: readonly number[], wire: WireFormat): TreeSum => {
  const sum = new TreeSum(wire);
  for (const shard of shards) {
    const values = Float32Array.from({ length: ELEMENTS }, (_, i) => valueOf(shard, i));
    sum.push({ level: 0, index: shard, values });
  }
  return sum;
};

const closing: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

/** A compute thread whose second model takes until `mayEnd`; until then there is NaN where its gradient will be. */
class Computation {
  mayEnd: Deferred<void> = makeDeferred();
  nodes: readonly GradientNode[] = [];
  computed = 0;
  applied: Float32Array | undefined;

  constructor(
    private readonly shard: number,
    private readonly wire: WireFormat,
  ) {}

  async run(name: string, argument: unknown): Promise<unknown> {
    if (name === "computeShards") return this.compute(argument as ShardsRequest);
    if (name === "measureGradients") return { gradients: argument, gradNorms: {} };
    this.applied = (argument as { gradients: Float32Array }).gradients;
    return {};
  }

  private async compute({ progress }: ShardsRequest) {
    this.computed += 1;
    const [{ level, index, values }] = treeOf([this.shard], this.wire).nodes;
    const gradients = hostMemory(ELEMENTS, true);
    gradients.set(values.subarray(0, FIRST));
    gradients.fill(NaN, FIRST);
    this.nodes = [{ level, index, gradients }];
    const told = { nodes: this.nodes, elementCount: ELEMENTS };
    progress?.postMessage({ ...told, finalElements: FIRST });
    await this.mayEnd.promise;
    gradients.set(values.subarray(FIRST), FIRST);
    return { ...told, stats: [] };
  }
}

async function start(route: Route, wire: WireFormat) {
  const bulk =
    route === "the call"
      ? undefined
      : await BulkServer.listen({ host: "127.0.0.1", port: 0, isEncrypted: false });
  closing.push(() => bulk?.close());
  const ports: number[] = [];
  const onFailed = () => undefined;
  const service = new AllReduceService({
    ...{ runId: RUN, wire, bulk, bucketTimeoutMs: 60_000, metrics: createMetrics("coordinator"), onFailed },
    topology: route === "sharded" ? "sharded" : "star",
    bulkAddressOf: (workerId) => ({ host: "127.0.0.1", port: ports[Number(workerId.split("-")[1])] }),
  });
  closing.push(() => service.close("the test is over"));
  const none = {} as never;
  const server = await startRpcServer(
    {
      ...{ membership: none, rollout: none, artifact: none, control: none },
      learner: { AllReduce: service.handle, Perform: () => undefined },
    },
    { host: "127.0.0.1", port: 0, tokens: undefined, onRefused: () => undefined },
  );
  closing.push(() => server.close(0));
  const members = Array.from({ length: LEARNERS }, (_, i) => ({
    ...{ workerId: `learner-${i}`, incarnation: 1, rank: i, firstShard: i, shardCount: 1 },
  }));
  const learners = await Promise.all(
    members.map(async ({ workerId }, i) => {
      const peers =
        route === "sharded"
          ? await BulkServer.listen({ host: "127.0.0.1", port: 0, isEncrypted: false })
          : undefined;
      ports[i] = peers?.port ?? 0;
      const clients = openClients(server.address);
      closing.push(() => Object.values(clients).forEach((client: { close(): void }) => client.close()));
      const common = { wire, onBytes: () => undefined };
      const exchange = new BulkExchange(
        {
          ...{ ...common, workerId, bucketElements: BUCKET_ELEMENTS, bucketTimeoutMs: 60_000, onFailed },
          coordinatorHost: "127.0.0.1",
        },
        peers,
      );
      closing.push(() => exchange.close());
      const sender = { runId: RUN, epoch: 1, workerId, incarnation: 1 };
      const computation = new Computation(i, wire);
      const compute = computation as unknown as StepDependencies["compute"];
      const state = {};
      const shardGradients = new ShardGradients(compute, () => state);
      const sync = new GradientSync(clients, sender, common, exchange);
      return { computation, compute, shardGradients, sync, exchange };
    }),
  );
  const open = (generation: number): Exchange__Output | null => {
    const exchange = service.open(generation, 1, LEARNERS, members);
    return exchange === undefined ? null : ({ contributors: [], ...exchange } as Exchange__Output);
  };
  const step = async (
    i: number,
    generation: number,
    exchange: Exchange__Output | null,
    signal: AbortSignal,
  ) => {
    const { exchange: bulkExchange, ...learner } = learners[i];
    if (exchange !== null) bulkExchange.open({ generation, step: 1 }, LEARNERS, exchange);
    const order = {
      ...{ generation, step: 1, exchange, shardCount: LEARNERS, learningRates: {}, timeLimitMs: 60_000 },
      shards: shardsOf({ kind: "ppo", rows: ppoRows(2) }, LEARNERS).slice(i, i + 1),
      denominators: { main: 1, ptx: 0 },
    };
    const vote: StepDependencies["vote"] = () => Promise.resolve("apply");
    return optimizerStep(order, { ...learner, digest: "", noteComputed: () => undefined, vote, signal });
  };
  return { learners, open, step };
}

/** Resolves when every bucket that is final has come back to both learners as part of the total. */
async function firstPartIsSummed(computations: readonly Computation[], wire: WireFormat): Promise<void> {
  const total = treeOf([0, 1], wire).total(LEARNERS);
  const isThere = ({ nodes }: Computation, at: number) => nodes[0]?.gradients[at] === total[at];
  const places = [1, 2].map((buckets) => buckets * BUCKET_ELEMENTS - 1);
  while (!computations.every((one) => places.every((at) => isThere(one, at)))) await sleep(5);
}

const never = new AbortController().signal;
const routes = (["the call", "bulk", "sharded"] as const).flatMap((route) =>
  (["f32", "bf16"] as const).map((wire) => [route, wire] as const),
);

describe("a learner that computes two models", { timeout: 60_000 }, () => {
  it.each(routes)(
    "has the first one's gradient summed before the second one's is computed: %s, %s",
    async (route, wire) => {
      const { learners, open, step } = await start(route, wire);
      const computations = learners.map(({ computation }) => computation);
      const exchange = open(1);
      const steps = learners.map((_, i) => step(i, 1, exchange, never));
      await firstPartIsSummed(computations, wire);
      for (const { mayEnd } of computations) mayEnd.resolve();
      await Promise.all(steps);
      const total = treeOf([0, 1], wire).total(LEARNERS);
      for (const { applied } of computations)
        expect(Buffer.from(applied!.buffer).equals(Buffer.from(total.buffer))).toBe(true);
    },
  );

  it.each(routes)("does a step again that was given up in between: %s, %s", async (route, wire) => {
    const { learners, open, step } = await start(route, wire);
    const computations = learners.map(({ computation }) => computation);
    const exchange = open(1);
    const abort = new AbortController();
    const steps = learners.map((_, i) => step(i, 1, exchange, abort.signal));
    await firstPartIsSummed(computations, wire);
    abort.abort();
    const outcomes = Promise.allSettled(steps);
    for (const { mayEnd } of computations) mayEnd.resolve();
    for (const outcome of await outcomes)
      expect(outcome).toMatchObject({ status: "rejected", reason: { code: "CANCELLED" } });
    const again = open(2);
    await Promise.all(learners.map((_, i) => step(i, 2, again, never)));
    const total = treeOf([0, 1], wire).total(LEARNERS);
    for (const { applied, computed } of computations) {
      expect(computed).toBe(2); // the first part of the earlier result was overwritten
      expect(Buffer.from(applied!.buffer).equals(Buffer.from(total.buffer))).toBe(true);
    }
  });

  it.each(routes)("fails with what its second model failed with: %s, %s", async (route, wire) => {
    const { learners, open, step } = await start(route, wire);
    const computations = learners.map(({ computation }) => computation);
    const exchange = open(1);
    const steps = Promise.allSettled(learners.map((_, i) => step(i, 1, exchange, never)));
    await firstPartIsSummed(computations, wire);
    computations[0].mayEnd.reject(new Error("no memory is left"));
    computations[1].mayEnd.resolve();
    const [failed, other] = await steps;
    expect(failed).toMatchObject({ status: "rejected", reason: { message: "no memory is left" } });
    expect(other).toMatchObject({ status: "rejected" });
  });
});

describe("LearnerCompute", () => {
  const SHARDS = 8;
  const rows = { kind: "ppo", rows: ppoRows(16) } as const;
  const orderOf = (first: number, count: number) => ({
    shards: shardsOf(rows, SHARDS).slice(first, first + count),
    shardCount: SHARDS,
    denominators: { main: denominatorOf(rows), ptx: 0 },
  });

  // One node, and several: 1, 2..3, 4..5, 6
  it.each([
    [0, 4],
    [1, 6],
  ])("says when the first model's part is final, of shards %i and %i after it", async (first, count) => {
    const learner = await LearnerCompute.open(ppoSettings());
    const order = orderOf(first, count);
    const expected = (await learner.computeShards(order)).nodes.map((node) => node.gradients.slice());
    const told: { finalElements: number; copies: Float32Array[] }[] = [];
    const progress: ShardsRequest["progress"] = {
      postMessage: ({ nodes, finalElements }) =>
        void told.push({ finalElements, copies: nodes.map(({ gradients }) => gradients.slice()) }),
    };
    const { nodes } = await learner.computeShards({ ...order, progress });
    await learner.close();
    expect(nodes.map(({ gradients }) => gradients)).toEqual(expected);
    expect(told).toHaveLength(1);
    const [{ finalElements, copies }] = told;
    expect(finalElements).toBeGreaterThan(0);
    expect(copies.map((copy) => copy.subarray(0, finalElements))).toEqual(
      expected.map((values) => values.subarray(0, finalElements)),
    );
    // Of the last node: those before it may be further.
    expect(copies.at(-1)!.subarray(finalElements)).not.toEqual(expected.at(-1)!.subarray(finalElements));
  });

  it("computes the next step where the last one's nodes were", async () => {
    const learner = await LearnerCompute.open(ppoSettings());
    const order = orderOf(1, 6);
    const buffersOf = (nodes: readonly GradientNode[]) => new Set(nodes.map((node) => node.gradients.buffer));
    const { nodes } = await learner.computeShards(order);
    const [gradients, ...spare] = nodes.map((node) => node.gradients);
    expect(spare).toHaveLength(3);
    const learningRates = { actor: 0.01, critic: 0.01 };
    await learner.applyGradients({ gradients, spare, learningRates, optimizerStep: 1 });
    const next = await learner.computeShards(order);
    expect(buffersOf(next.nodes)).toEqual(buffersOf(nodes));
    await learner.close();
  });
});
