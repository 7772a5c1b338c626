/** Process entry of the all-reduce benchmark: a coordinator's server, or one learner's synchronisation. */
import { AllReduceService } from "../coordinator/all-reduce-service.js";
import { createMetrics } from "../observability/metrics.js";
import { BulkExchange } from "../learner/bulk-exchange.js";
import { BUCKET_ELEMENTS, GradientSync } from "../learner/gradient-sync.js";
import { BulkServer } from "../reduce/bulk-server.js";
import type { WireFormat } from "../rpc/codec/gradient.js";
import type { Exchange__Output } from "../rpc/generated/troupe/v1/Exchange.js";
import { startRpcServer } from "../rpc/server.js";
import { openClients } from "../worker/coordinator-link.js";

export interface AllReduceSettings {
  readonly learners: number;
  readonly elements: number;
  readonly wire: WireFormat;
  /** "bulk-tls": the bulk channel under TLS 1.3 with the generation's secret. */
  readonly transport: "grpc" | "bulk" | "bulk-tls" | "sharded";
  /** Of a learner; -1 for the coordinator. */
  readonly rank: number;
  /** Address for learners. */
  readonly coordinator: string;
}

export type ToProcess =
  | { readonly kind: "open"; readonly step: number; readonly bulkPorts: readonly number[] }
  | { readonly kind: "close" }
  | { readonly kind: "prepare"; readonly step: number; readonly exchange: ExchangeJson | null }
  | { readonly kind: "reduce"; readonly step: number; readonly exchange: ExchangeJson | null };

export type FromProcess =
  | { readonly kind: "listening"; readonly address: string }
  | { readonly kind: "ready"; readonly bulkPort: number }
  | { readonly kind: "opened"; readonly exchange: ExchangeJson | null }
  | { readonly kind: "closed"; readonly cpuSeconds: number }
  | { readonly kind: "prepared" }
  | {
      readonly kind: "reduced";
      readonly seconds: number;
      readonly cpuSeconds: number;
      readonly hash: number;
    };

/** An `Exchange` that survives JSON. */
export type ExchangeJson = Omit<Exchange__Output, "secret"> & { readonly secret: string };

const settings = JSON.parse(process.argv[2]) as AllReduceSettings;
const { learners, elements, wire, transport, rank } = settings;
const RUN_ID = "bench";
const PATIENCE_MS = 120_000;
const say = (message: FromProcess): void => void process.send?.(message);
const seconds = (since: NodeJS.CpuUsage): number => {
  const { user, system } = process.cpuUsage(since);
  return (user + system) / 1e6;
};
const workerIdOf = (learner: number): string => `learner-${learner}`;
const noBytes = () => undefined;

process.once("disconnect", () => process.exit(0));
if (rank < 0) await coordinate();
else await learn();

async function coordinate(): Promise<void> {
  const isEncrypted = transport === "bulk-tls";
  const bulk =
    transport === "grpc" ? undefined : await BulkServer.listen({ host: "127.0.0.1", port: 0, isEncrypted });
  let ports: readonly number[] = [];
  const service = new AllReduceService({
    ...{ runId: RUN_ID, wire, bulk, bucketTimeoutMs: PATIENCE_MS, metrics: createMetrics("coordinator") },
    isEncrypted,
    topology: transport === "sharded" ? "sharded" : "star",
    bulkAddressOf: (workerId) => ({ host: "127.0.0.1", port: ports[Number(workerId.split("-")[1])] }),
    onFailed: ({ reason }) => {
      throw new Error(reason);
    },
  });
  const none = {} as never;
  const server = await startRpcServer(
    {
      ...{ membership: none, rollout: none, artifact: none, control: none },
      learner: { AllReduce: service.handle, Perform: noBytes },
    },
    { host: "127.0.0.1", port: 0, tokens: undefined, onRefused: noBytes },
  );
  let cpu = process.cpuUsage();
  process.on("message", (message: ToProcess) => {
    if (message.kind === "open") {
      ports = message.bulkPorts;
      const members = Array.from({ length: learners }, (_, i) => ({
        ...{ workerId: workerIdOf(i), incarnation: 1, rank: i, firstShard: i, shardCount: 1 },
      }));
      const exchange = service.open(message.step, message.step, learners, members);
      cpu = process.cpuUsage();
      const secret = Buffer.from((exchange?.secret as Buffer | undefined) ?? "").toString("hex");
      say({
        kind: "opened",
        exchange: exchange === undefined ? null : ({ contributors: [], ...exchange, secret } as never),
      });
    } else if (message.kind === "close") {
      say({ kind: "closed", cpuSeconds: seconds(cpu) });
    }
  });
  say({ kind: "listening", address: server.address });
}

async function learn(): Promise<void> {
  const server =
    transport === "sharded"
      ? await BulkServer.listen({ host: "127.0.0.1", port: 0, isEncrypted: false })
      : undefined;
  const workerId = workerIdOf(rank);
  const bulk = new BulkExchange(
    {
      ...{ workerId, wire, bucketElements: BUCKET_ELEMENTS, bucketTimeoutMs: PATIENCE_MS },
      coordinatorHost: "127.0.0.1",
      onBytes: noBytes,
      onFailed: ({ reason }) => {
        throw new Error(reason);
      },
    },
    server,
  );
  const sync = new GradientSync(
    openClients(settings.coordinator),
    { runId: RUN_ID, epoch: 1, workerId, incarnation: 1 },
    { wire, onBytes: noBytes },
    bulk,
  );
  const gradient = new Float32Array(elements);
  const shared = new AbortController().signal;
  let hash: number | undefined;
  const obey = async (message: ToProcess): Promise<void> => {
    if (message.kind !== "prepare" && message.kind !== "reduce") return;
    const { step } = message;
    const exchange =
      message.exchange === null
        ? null
        : { ...message.exchange, secret: Buffer.from(message.exchange.secret, "hex") };
    if (message.kind === "prepare") {
      fill(gradient, rank);
      if (exchange !== null) bulk.open({ generation: step, step }, learners, exchange);
      return say({ kind: "prepared" });
    }
    const cpu = process.cpuUsage();
    const started = performance.now();
    const nodes = [{ level: 0, index: rank, gradients: gradient }];
    const route = { generation: step, step, exchange, timeLimitMs: PATIENCE_MS };
    const sum = await sync.allReduce(route, nodes, elements, shared);
    const lap = { seconds: (performance.now() - started) / 1000, cpuSeconds: seconds(cpu) };
    // The same addends every time: the first sum is compared element by element, those after it by their checksum.
    if (hash === undefined) check(sum.values);
    if (hash !== undefined && hash !== sum.hash) throw new Error("the sum differs from the first one");
    hash = sum.hash;
    say({ kind: "reduced", ...lap, hash });
  };
  process.on("message", (message: ToProcess) => void obey(message));
  say({ kind: "ready", bulkPort: server?.port ?? 0 });
}

/** Gradients repeat after so many elements: a prime, so that no two buckets are alike. */
const PERIOD = 1_000_003;

/** Element i < PERIOD of learner `rank`'s gradient: in (-0.5, 0.5), all 24 bits in use. */
function elementOf(i: number, rank: number): number {
  const mixed = Math.imul(i + 1, 2654435761) ^ Math.imul(rank + 1, 2246822519);
  return (((mixed ^ (mixed >>> 15)) >>> 8) - 0x800000) / 0x1000000;
}

function fill(values: Float32Array, rank: number): void {
  const first = values.subarray(0, PERIOD);
  for (let i = 0; i < first.length; i++) first[i] = elementOf(i, rank);
  // Leaves of the tree are bfloat16 where the wire is; a learner's tree sum sees to that.
  if (wire === "bf16") for (let i = 0; i < first.length; i++) first[i] = bf16(first[i]);
  for (let at = PERIOD; at < values.length; at += PERIOD)
    values.set(first.subarray(0, Math.min(PERIOD, values.length - at)), at);
}

const bits = new Uint32Array(1);
const float = new Float32Array(bits.buffer);
function bf16(value: number): number {
  float[0] = value;
  bits[0] = (bits[0] + 0x7fff + ((bits[0] >>> 16) & 1)) & 0xffff0000;
  return float[0];
}

/** Every element against the pairwise sum in plain JavaScript. */
function check(values: Float32Array): void {
  const round = wire === "bf16" ? (value: number) => bf16(Math.fround(value)) : Math.fround;
  const leaf = wire === "bf16" ? (i: number, rank: number) => bf16(elementOf(i, rank)) : elementOf;
  const sumOf = (i: number, first: number, count: number): number =>
    count === 1 ? leaf(i, first) : round(sumOf(i, first, count / 2) + sumOf(i, first + count / 2, count / 2));
  const expected = Float32Array.from({ length: Math.min(PERIOD, values.length) }, (_, i) =>
    sumOf(i, 0, learners),
  );
  for (let at = 0; at < values.length; at += PERIOD) {
    const part = values.subarray(at, at + PERIOD);
    for (let i = 0; i < part.length; i++)
      if (part[i] !== expected[i])
        throw new Error(`element ${at + i}: expected ${expected[i]}, got ${part[i]}`);
  }
}
