/** Two coordinators and their workers as real processes, for tests of taking over. */
import { spawn, type ChildProcess } from "node:child_process";
import { randomUUID } from "node:crypto";
import { existsSync, mkdirSync, openSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { readCoordinatorFile } from "../../src/shared/coordinator-file.js";
import { ControlClient, type RunStatus } from "../../src/rpc/control-client.js";
import { sleep } from "../../src/shared/abort.js";
import { packageRoot } from "../../src/shared/paths.js";

const STATUS_MS = 1_000;

export interface FleetOptions {
  /** Folder for logs and run directories. */
  readonly folder: string;
  /** A run directory for each coordinator, instead of one that all of them share. */
  readonly areApart?: boolean;
  readonly config: string;
  /** host:port; several with commas. */
  readonly nats: string;
  readonly leaseTtlMs: number;
  readonly sets?: readonly string[];
  /** Fields of cluster.durable besides those above, as YAML. */
  readonly durable?: string;
}

export interface FleetProcess {
  readonly child: ChildProcess;
  readonly exited: Promise<number | NodeJS.Signals | null>;
}

export class Fleet {
  readonly runName = `fleet-${randomUUID().slice(0, 8)}`;
  readonly #runDirs = new Set<string>();
  readonly #processes: FleetProcess[] = [];
  #control: ControlClient | undefined;

  constructor(private readonly options: FleetOptions) {
    mkdirSync(this.#logs, { recursive: true });
  }

  coordinator(name: string, args: readonly string[] = ["--standby"]): FleetProcess {
    const { nats, leaseTtlMs, durable = "" } = this.options;
    const runDir = this.runDirOf(name);
    this.#runDirs.add(runDir);
    const sets = [
      `cluster.durable={type: nats, servers: [${nats}], run: ${this.runName}, leaseTtlMs: ${leaseTtlMs} ${durable}}`,
      ...(this.options.sets ?? []),
    ].flatMap((set) => ["--set", set]);
    return this.#start(name, ["coordinator", this.options.config, "--run-dir", runDir, ...sets, ...args]);
  }

  runDirOf(coordinator: string): string {
    return join(this.options.folder, this.options.areApart ? `run-${coordinator}` : "run");
  }

  /** Workers that ask NATS for the coordinator, or are given its addresses. */
  worker(role: "rollout" | "learner", name: string, coordinator = this.natsAddress): FleetProcess {
    return this.#start(name, [role, "--coordinator", coordinator, "--worker-id", name]);
  }

  /** `troupe stop`, by the run directory of the coordinator. @returns its exit code */
  stopRun(coordinator: string): Promise<number | NodeJS.Signals | null> {
    return this.#start("stop", ["stop", "--run-dir", this.runDirOf(coordinator)]).exited;
  }

  get natsAddress(): string {
    return `nats://${this.options.nats}/${this.runName}`;
  }

  /** What the coordinator that listened last says; undefined while it does not answer. */
  async status(): Promise<RunStatus | undefined> {
    const file = await this.#leader();
    if (file === undefined) return undefined;
    if (this.#control?.address !== file.grpcAddress) {
      this.#control?.close();
      this.#control = new ControlClient(file.grpcAddress);
    }
    // One that was stopped does not answer, and another may have begun to listen meanwhile.
    return Promise.race([
      this.#control.status().catch(() => undefined),
      sleep(STATUS_MS).then(() => undefined),
    ]);
  }

  async leaderPid(): Promise<number | undefined> {
    return (await this.#leader())?.pid;
  }

  /** The one that began to listen last. */
  async #leader() {
    const files = await Promise.all([...this.#runDirs].map((runDir) => readCoordinatorFile(runDir)));
    return files.reduce((last, file) =>
      file !== undefined && (last === undefined || String(file.startedAt) > String(last.startedAt))
        ? file
        : last,
    );
  }

  /** Polls until the leader's status is so. @throws after `patienceMs`, with what every process said */
  async until(isSo: (status: RunStatus) => boolean, patienceMs = 100_000): Promise<RunStatus> {
    const deadlineMs = performance.now() + patienceMs;
    while (performance.now() < deadlineMs) {
      const status = await this.status();
      if (status !== undefined && isSo(status)) return status;
      await sleep(5);
    }
    throw new Error(`that did not happen within ${patienceMs} ms\n${this.logs()}`);
  }

  /** Of the coordinator that ended the run. */
  summary(): { stateSha256: string; ppo: { experiences: Record<string, number> } } {
    const [path] = [...this.#runDirs].map((runDir) => join(runDir, "summary.json")).filter(existsSync);
    return JSON.parse(readFileSync(path, "utf8"));
  }

  async stop(): Promise<void> {
    this.#control?.close();
    for (const { child } of this.#processes) child.kill("SIGKILL");
    await Promise.all(this.#processes.map(({ exited }) => exited));
  }

  logs(): string {
    if (!existsSync(this.#logs)) return "(no logs)";
    return readdirSync(this.#logs)
      .map(
        (name) =>
          `── ${name}\n${readFileSync(join(this.#logs, name), "utf8").split("\n").slice(-30).join("\n")}`,
      )
      .join("\n");
  }

  get #logs(): string {
    return join(this.options.folder, "logs");
  }

  #start(name: string, args: readonly string[]): FleetProcess {
    const log = openSync(join(this.#logs, `${name}.log`), "a");
    const child = spawn(process.execPath, [join(packageRoot, "bin", "troupe.mjs"), ...args], {
      stdio: ["ignore", log, log],
      env: { ...process.env, TROUPE_SKIP_BUILD: "1", NO_COLOR: "1" },
    });
    const exited = new Promise<number | NodeJS.Signals | null>((resolve) =>
      child.once("exit", (code, signal) => resolve(code ?? signal)),
    );
    const started = { child, exited };
    this.#processes.push(started);
    return started;
  }
}

/** Experiences of one iteration of the tiny run, and optimizer steps made of them. */
export const EXPERIENCES = 16;
export const STEPS = 4;

/** In the middle of an iteration's update; the first one's or, had it gone by unseen, a later one's. */
export const isUpdating = (first: number) => (status: RunStatus) =>
  status.stage === "ppo" &&
  status.iteration >= first &&
  status.optimizerStep > status.iteration * STEPS &&
  status.optimizerStep < (status.iteration + 1) * STEPS;

/** Some of an iteration's experience is there, in the same sense. */
export const isCollecting = (first: number) => (status: RunStatus) =>
  status.stage === "ppo" &&
  status.iteration >= first &&
  Number(status.ledger?.buffered) > 0 &&
  Number(status.ledger?.buffered) < EXPERIENCES;
