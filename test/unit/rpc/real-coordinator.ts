/** The coordinator's real services over loopback, with a log in memory and no stage running: what a stranger meets. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as grpc from "@grpc/grpc-js";
import { configSchema, type Config } from "../../../src/config/schema.js";
import { makeArtifactService } from "../../../src/coordinator/artifact-service.js";
import { ArtifactStore } from "../../../src/coordinator/artifact-store.js";
import { makeControlService } from "../../../src/coordinator/control-service.js";
import { CoreHost } from "../../../src/coordinator/core-host.js";
import { DEFAULT_CORE_CONFIG, makeState, type CoreConfig } from "../../../src/coordinator/core/index.js";
import { Dispatcher } from "../../../src/coordinator/dispatcher.js";
import { ExperienceStore } from "../../../src/coordinator/experience-store.js";
import { MemoryLog } from "../../../src/coordinator/journal/index.js";
import { LearnerGroup } from "../../../src/coordinator/learner-group.js";
import { makeMembershipService } from "../../../src/coordinator/membership-service.js";
import { WorkerDirectory } from "../../../src/coordinator/worker-directory.js";
import { createLogger } from "../../../src/observability/logger.js";
import { createMetrics } from "../../../src/observability/metrics.js";
import { EventBus } from "../../../src/observability/progress.js";
import type { JoinTokens } from "../../../src/rpc/auth.js";
import { type Refusal } from "../../../src/rpc/auth.js";
import type { BulkServer } from "../../../src/reduce/bulk-server.js";
import { startRpcServer, type RpcServerOptions } from "../../../src/rpc/server.js";

export const RUN_ID = "run-1";

export interface RealCoordinator {
  readonly address: string;
  readonly host: CoreHost;
  readonly log: MemoryLog;
  readonly dispatcher: Dispatcher;
  readonly learners: LearnerGroup;
  readonly artifacts: string;
  readonly refusals: Refusal[];
  /** Method and status of every answered call. */
  readonly answers: { method: string; code: grpc.status }[];
  /** Why the run would have ended. */
  readonly failures: unknown[];
  readonly stops: string[];
  close(): Promise<void>;
}

export async function startRealCoordinator(
  options: {
    tokens?: JoinTokens;
    maxArtifactBytes?: number;
    /** Rows of training in one message. */
    pieceBytes?: number;
    /** What an earlier coordinator has written. */
    log?: MemoryLog;
    /** What workers are told, and how gradients travel. */
    cluster?: Partial<Config["cluster"]>;
    core?: Partial<CoreConfig>;
    bulk?: BulkServer;
  } & Pick<Partial<RpcServerOptions>, "tls" | "port" | "connections"> = {},
): Promise<RealCoordinator> {
  const folder = mkdtempSync(join(tmpdir(), "troupe-rpc-"));
  const config = configSchema.parse({ data: { path: "rows.jsonl" }, cluster: options.cluster ?? {} });
  const coreConfig = { ...DEFAULT_CORE_CONFIG, ...options.core };
  const log = options.log ?? new MemoryLog();
  const logger = createLogger({ role: "coordinator", level: "silent" });
  const metrics = createMetrics("coordinator");
  const bus = new EventBus();
  const failures: unknown[] = [];
  const stops: string[] = [];
  const refusals: Refusal[] = [];
  const answers: { method: string; code: grpc.status }[] = [];
  const host = new CoreHost(makeState(coreConfig, await log.recover()), log, logger, (error) =>
    failures.push(error),
  );
  host.on("StopRun", (effect) => failures.push(effect));
  const directory = new WorkerDirectory(bus);
  const artifacts = new ArtifactStore(folder);
  const runId = RUN_ID;
  const shared = { host, directory, metrics, logger, runId };
  const dispatcher = new Dispatcher({ ...shared, store: new ExperienceStore(log), promptsPerTask: 4 });
  const learners = new LearnerGroup({
    ...shared,
    artifacts,
    cluster: config.cluster,
    pieceBytes: options.pieceBytes,
    bulk: options.bulk,
  });
  learners.onFatal = (error) => failures.push(error);
  const server = await startRpcServer(
    {
      membership: makeMembershipService({ ...shared, config, isOver: () => false }),
      rollout: dispatcher.service,
      learner: learners.service,
      artifact: makeArtifactService({
        store: artifacts,
        host,
        runId,
        maxBytes: options.maxArtifactBytes ?? 1 << 20,
      }),
      control: makeControlService({
        host,
        directory,
        bus,
        runId,
        clock: { seconds: 0 },
        stop: (reason) => stops.push(reason),
      }),
    },
    {
      host: "127.0.0.1",
      port: options.port ?? 0,
      tokens: options.tokens,
      tls: options.tls,
      connections: options.connections,
      onRefused: (refusal) => refusals.push(refusal),
      onAnswered: (method, code) => answers.push({ method, code }),
    },
  );
  host.dispatch({ type: "CoordinatorStarted" });
  await host.settled();
  return {
    address: server.address,
    host,
    log,
    dispatcher,
    learners,
    artifacts: folder,
    refusals,
    answers,
    failures,
    stops,
    async close() {
      await server.close(50);
      await host.close();
      await logger.close();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

export interface RawAnswer {
  readonly code: grpc.status;
  readonly details: string;
  readonly replies: readonly Buffer[];
}

/** Any method with any bytes, over one connection. */
export class RawClient {
  private readonly client: grpc.Client;

  constructor(
    address: string,
    private readonly token?: string,
    credentials: grpc.ChannelCredentials = grpc.credentials.createInsecure(),
    options: grpc.ClientOptions = {},
  ) {
    this.client = new grpc.Client(address, credentials, {
      "grpc.max_send_message_length": -1,
      "grpc.max_receive_message_length": -1,
      ...options,
    });
  }

  /** A call that is ended after `messages`; streams of the server are given up after `patienceMs`. */
  call(
    path: string,
    messages: readonly Buffer[],
    patienceMs = 2_000,
    metadata?: grpc.Metadata,
  ): Promise<RawAnswer> {
    const headers = metadata ?? new grpc.Metadata();
    if (this.token !== undefined) headers.set("authorization", `Bearer ${this.token}`);
    // Bidirectional on this side fits every method: what the server takes and gives is on the wire the same.
    const call = this.client.makeBidiStreamRequest<Buffer, Buffer>(
      path,
      (bytes) => bytes,
      (bytes) => bytes,
      headers,
      { deadline: Date.now() + patienceMs },
    );
    return new Promise((resolve) => {
      const replies: Buffer[] = [];
      call.on("data", (reply: Buffer) => replies.push(reply));
      call.on("error", () => undefined); // the status says it
      call.on("status", ({ code, details }: grpc.StatusObject) => resolve({ code, details, replies }));
      for (const message of messages) call.write(message);
      call.end();
    });
  }

  close(): void {
    this.client.close();
  }
}
