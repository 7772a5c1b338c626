/** Real runs for integration tests: a model of one layer, a few dozen rows, every process a process of its own. */
import { spawn, type ChildProcess } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync } from "node:fs";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { execFileSync } from "node:child_process";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { stringify } from "yaml";
import { generateDataset, toJsonl, vocabularyTexts } from "../../examples/quickstart/generate.js";
import type { PartialConfig } from "../../src/config/presets.js";
import { writeWordTokenizer } from "../../src/data/tokenizer-files.js";
import { readCoordinatorFile } from "../../src/shared/coordinator-file.js";
import { ControlClient, type RunStatus } from "../../src/rpc/control-client.js";
import { sleep } from "../../src/shared/abort.js";
import { packageRoot } from "../../src/shared/paths.js";

/** Waits of tests are generous: the machine may be busy. */
export const PATIENCE_MS = 150_000;

const tiny = {
  name: "tiny",
  seed: 7,
  model: { fresh: { layers: 1, hidden: 32, heads: 2, contextTokens: 40 } },
  data: {
    split: [2, 3, 4] as [number, number, number],
    maxPromptTokens: 20,
    maxResponseTokens: 20,
    evalFraction: 0.1,
  },
  sft: { batchSize: 8, optimizer: { learningRate: 0.01 } },
  reward: { batchSize: 8, optimizer: { learningRate: 0.005 } },
  generation: { maxNewTokens: 12 },
  ppo: {
    iterations: 4,
    rolloutBatchSize: 16,
    minibatchSize: 8,
    ppoEpochs: 2,
    actor: { learningRate: 0.001 },
    critic: { learningRate: 0.002 },
  },
  cluster: { microShards: 4, promptsPerTask: 2, heartbeatIntervalMs: 500 },
  checkpoint: { everyIterations: 2 },
  eval: { prompts: 8, samples: 1 },
} satisfies Omit<PartialConfig, "data"> & { data: Partial<PartialConfig["data"]> };

const ROWS = 144;

export interface TinySummary {
  readonly sft: { readonly evalLossBefore: number; readonly evalLossAfter: number };
  readonly reward: { readonly heldOutAccuracy: number };
  readonly ppo: {
    readonly heldOutReward: { readonly before: number; readonly after: number };
    readonly klToRef: number;
    readonly iterations: number;
    readonly stoppedByKlBudget: boolean;
    readonly experiences: {
      readonly admitted: number;
      readonly trained: number;
      readonly dropped: number;
      readonly droppedByReason: Readonly<Record<string, number>>;
      readonly buffered: number;
      readonly inFlight: number;
      readonly trainedByStaleness: Readonly<Record<string, number>>;
    };
  };
  readonly processes: { readonly rollout: number; readonly learner: number };
  readonly seconds: number;
  readonly model: string;
  readonly stateSha256: string;
}

/** A folder for the runs of one test file; `remove` ends what is left of them first. */
export class RunFolder {
  readonly path = mkdtempSync(join(tmpdir(), "troupe-run-"));
  readonly #runs: Run[] = [];
  #config: Promise<string> | undefined;

  /** The tiny configuration, on its own data. */
  configPath(): Promise<string> {
    this.#config ??= this.#writeConfig();
    return this.#config;
  }

  /** Starts `troupe run` on the tiny configuration in the run directory `name`. */
  async start(name: string, args: readonly string[] = []): Promise<Run> {
    const run = new Run(join(this.path, name), await this.configPath(), args);
    this.#runs.push(run);
    return run;
  }

  async remove(): Promise<void> {
    for (const run of this.#runs) await run.killAll();
    await rm(this.path, { recursive: true, force: true, maxRetries: 3 });
  }

  async #writeConfig(): Promise<string> {
    const folder = join(this.path, "input");
    const tokenizer = join(folder, "tokenizer");
    await mkdir(folder, { recursive: true });
    await writeWordTokenizer(tokenizer, vocabularyTexts());
    const data = join(folder, "preferences.jsonl");
    await writeFile(data, toJsonl(generateDataset({ rows: ROWS, seed: 3 })));
    const config = {
      ...tiny,
      model: { ...tiny.model, tokenizer: { type: "path", path: tokenizer } },
      data: { ...tiny.data, path: data },
    };
    const path = join(folder, "tiny.yaml");
    await writeFile(path, stringify(config));
    return path;
  }
}

/** One start of the launcher, with its own process group. */
export class Run {
  readonly launcher: ChildProcess;
  readonly exited: Promise<{ code: number | null; signal: NodeJS.Signals | null }>;
  output = "";
  #control: ControlClient | undefined;

  constructor(
    readonly runDir: string,
    config: string,
    args: readonly string[],
  ) {
    const bin = join(packageRoot, "bin", "troupe.mjs");
    this.launcher = spawn(process.execPath, [bin, "run", config, "--run-dir", runDir, ...args], {
      detached: true,
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, TROUPE_SKIP_BUILD: "1", NO_COLOR: "1" },
    });
    const keep = (chunk: Buffer) => void (this.output += chunk.toString());
    this.launcher.stdout?.on("data", keep);
    this.launcher.stderr?.on("data", keep);
    this.exited = new Promise((resolve) =>
      this.launcher.once("close", (code, signal) => {
        this.#control?.close();
        resolve({ code, signal });
      }),
    );
  }

  /** Waits for a successful end. @throws with everything the launcher said when it was not */
  async finish(): Promise<TinySummary> {
    const { code, signal } = await this.exited;
    if (code !== 0) throw new Error(`the run ended with ${code ?? signal}\n${this.output}\n${this.logs()}`);
    return JSON.parse(await readFile(join(this.runDir, "summary.json"), "utf8")) as TinySummary;
  }

  /** The coordinator's answer, or undefined while it does not answer. */
  async status(): Promise<RunStatus | undefined> {
    const file = await readCoordinatorFile(this.runDir);
    if (file === undefined) return undefined;
    if (this.#control?.address !== file.grpcAddress) {
      this.#control?.close();
      this.#control = new ControlClient(file.grpcAddress);
    }
    return this.#control.status().catch(() => undefined);
  }

  /** Polls the status until it is so. @throws when the run ends first */
  async until(isSo: (status: RunStatus) => boolean): Promise<RunStatus> {
    const deadlineMs = performance.now() + PATIENCE_MS;
    while (this.launcher.exitCode === null && performance.now() < deadlineMs) {
      const status = await this.status();
      if (status !== undefined && isSo(status)) return status;
      await sleep(5);
    }
    throw new Error(`the run was over or stuck before that happened\n${this.output}\n${this.logs()}`);
  }

  async coordinatorPid(): Promise<number> {
    const file = await readCoordinatorFile(this.runDir);
    if (file === undefined) throw new Error("no coordinator has listened yet");
    return file.pid;
  }

  /** SIGKILL to the launcher's process group: what a power cut does. */
  async killAll(): Promise<void> {
    if (
      this.launcher.pid !== undefined &&
      this.launcher.exitCode === null &&
      this.launcher.signalCode === null
    ) {
      process.kill(-this.launcher.pid, "SIGKILL");
    }
    await this.exited;
    for (const pid of this.processes()) process.kill(pid, "SIGKILL");
  }

  /** Living processes of this run, the launcher included. */
  processes(): number[] {
    return commandLines()
      .filter(({ command }) => command.includes(this.runDir))
      .map(({ pid }) => pid);
  }

  /** The last lines of every process, for messages of failed tests. */
  logs(): string {
    const folder = join(this.runDir, "logs");
    if (!existsSync(folder)) return "(no logs)";
    return readdirSync(folder)
      .filter((name) => name.endsWith(".log"))
      .map(
        (name) => `── ${name}\n${readFileSync(join(folder, name), "utf8").split("\n").slice(-25).join("\n")}`,
      )
      .join("\n");
  }
}

function commandLines(): { pid: number; command: string }[] {
  if (existsSync("/proc/self/cmdline")) {
    return readdirSync("/proc")
      .filter((name) => /^\d+$/.test(name))
      .map((name) => ({
        pid: Number(name),
        command: readIfThere(`/proc/${name}/cmdline`).replaceAll("\0", " "),
      }));
  }
  return execFileSync("ps", ["-axww", "-o", "pid=,command="], { encoding: "utf8" })
    .split("\n")
    .map((line) => ({ pid: Number.parseInt(line, 10), command: line }));
}

function readIfThere(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return ""; // the process ended meanwhile
  }
}
