/**
 * The way of a version: from the learner's first byte on disk to the last rollout worker that computes with it. This
 * process is the coordinator, with its artifact service alone; children are the learner and the workers.
 */
import { fork, type ChildProcess } from "node:child_process";
import { subscribe } from "node:diagnostics_channel";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import type { Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { makeArtifactService } from "../../coordinator/artifact-service.js";
import { ArtifactStore } from "../../coordinator/artifact-store.js";
import { CoreHost } from "../../coordinator/core-host.js";
import { DEFAULT_CORE_CONFIG, makeState } from "../../coordinator/core/index.js";
import { MemoryLog } from "../../coordinator/journal/index.js";
import { createLogger } from "../../observability/logger.js";
import { startRpcServer } from "../../rpc/server.js";
import { builtFile } from "../../shared/paths.js";
import type { FromWeightsProcess, ToWeightsProcess, WeightsSettings } from "../weights-process.js";
import type { Lap, ModelShape, Side } from "./side.js";

export interface WeightsConfig extends ModelShape {
  readonly workers: number;
  /** "remote": nobody sees the coordinator's files, everything goes through the artifact service. */
  readonly route: "host" | "remote";
  readonly threads: number;
}

const RUN_ID = "bench";

class Participant {
  private readonly child: ChildProcess;

  constructor(settings: WeightsSettings) {
    this.child = fork(builtFile("src/bench/weights-process"), [JSON.stringify(settings)], { execArgv: [] });
  }

  get pid(): number {
    return this.child.pid ?? 0;
  }

  async ask<K extends FromWeightsProcess["kind"]>(
    kind: K,
    message?: ToWeightsProcess,
  ): Promise<Extract<FromWeightsProcess, { kind: K }>> {
    if (message !== undefined) this.child.send(message);
    const [answer] = (await Promise.race([
      once(this.child, "message"),
      once(this.child, "exit").then(() => Promise.reject(new Error("a process of the benchmark ended"))),
    ])) as [FromWeightsProcess];
    if (answer.kind !== kind) throw new Error(`expected ${kind}, got ${JSON.stringify(answer)}`);
    return answer as Extract<FromWeightsProcess, { kind: K }>;
  }

  async end(): Promise<void> {
    if (this.child.exitCode !== null) return;
    this.child.disconnect();
    await once(this.child, "exit");
  }
}

export async function open(config: WeightsConfig): Promise<Side> {
  const folder = await mkdtemp(join(tmpdir(), "troupe-bench-"));
  const store = new ArtifactStore(join(folder, "artifacts"));
  const sockets: Socket[] = [];
  subscribe("net.server.socket", (message) => sockets.push((message as { socket: Socket }).socket));
  const server = await serve(store);
  const participant = (role: WeightsSettings["role"], index: number) =>
    new Participant({
      ...config,
      role,
      workerId: `${role}-${index}`,
      coordinator: server.address,
      runId: RUN_ID,
    });
  const learner = participant("learner", 0);
  const workers = Array.from({ length: config.workers }, (_, i) => participant("rollout", i));
  const everyone = [learner, ...workers];
  await Promise.all(everyone.map((one) => one.ask("ready")));

  const sentBytes = () =>
    sockets.reduce((sum, { bytesRead, bytesWritten }) => sum + bytesRead + bytesWritten, 0);
  /** Written by all processes, to files and to sockets. */
  const writtenBytes = () => {
    const pids = [process.pid, ...everyone.map(({ pid }) => pid)];
    return pids.reduce((sum, pid) => sum + charactersWritten(pid), 0);
  };
  let version = 0;
  return {
    async repeat(): Promise<Lap> {
      version += 1;
      const before = { sent: sentBytes(), written: writtenBytes(), cpu: process.cpuUsage() };
      const startedMs = performance.now();
      const isOnHost = config.route === "host";
      const handoverDir = isOnHost ? await store.handoverDir() : "";
      const { ref, cpuSeconds } = await learner.ask("published", { kind: "publish", version, handoverDir });
      const publishedMs = performance.now();
      const seen = isOnHost ? ref : { ...ref, localPath: "" };
      const loads = await Promise.all(workers.map((one) => one.ask("loaded", { kind: "load", ref: seen })));
      const swappedMs = performance.now();
      for (const { sha256 } of loads)
        if (sha256 !== ref.sha256) throw new Error("a worker holds another version");
      const own = process.cpuUsage(before.cpu);
      const sent = sentBytes() - before.sent;
      const written = writtenBytes() - before.written - sent;
      await store.remove(ref.name);
      return {
        units: 1,
        seconds: (swappedMs - startedMs) / 1000,
        cpuSeconds: loads.reduce(
          (sum, load) => sum + load.cpuSeconds,
          cpuSeconds + (own.user + own.system) / 1e6,
        ),
        facts: {
          publishSeconds: (publishedMs - startedMs) / 1000,
          loadSeconds: (swappedMs - publishedMs) / 1000,
          fileMb: ref.sizeBytes / 1e6,
          sentMb: sent / 1e6,
          writtenMb: written / 1e6,
        },
      };
    },
    async close() {
      await Promise.all(everyone.map((one) => one.end()));
      await server.close(0);
      await rm(folder, { recursive: true, force: true });
    },
  };
}

async function serve(store: ArtifactStore) {
  const log = new MemoryLog();
  const logger = createLogger({ role: "coordinator", level: "silent" });
  const state = makeState(DEFAULT_CORE_CONFIG, await log.recover());
  const host = new CoreHost(state, log, logger, (error) => {
    throw error;
  });
  const none = {} as never;
  const artifact = makeArtifactService({
    ...{ store, host, runId: RUN_ID, maxBytes: Number.MAX_SAFE_INTEGER },
  });
  return startRpcServer(
    { membership: none, rollout: none, learner: none, control: none, artifact },
    { host: "127.0.0.1", port: 0, tokens: undefined, onRefused: () => undefined },
  );
}

/** Bytes that a process gave to write calls so far; NaN where the system does not tell. */
function charactersWritten(pid: number): number {
  try {
    return Number(/^wchar: (\d+)$/m.exec(readFileSync(`/proc/${pid}/io`, "utf8"))?.[1]);
  } catch {
    return NaN;
  }
}
