/** The coordinator under load: the program users start, as a process of its own, watched from outside. */
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { readFile, readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { waitForCoordinator } from "../launcher/find-coordinator.js";
import type { CoordinatorFile } from "../shared/coordinator-file.js";
import { TroupeError } from "../shared/errors.js";
import { packageRoot } from "../shared/paths.js";
import type { LoadInput } from "./load-input.js";

const START_MS = 60_000;
const EXIT_MS = 20_000;

export class CoordinatorProcess {
  private said = "";

  private constructor(
    private readonly child: ChildProcess,
    readonly runDir: string,
  ) {
    child.stderr!.on("data", (text: Buffer) => (this.said = (this.said + text.toString()).slice(-4000)));
  }

  file!: CoordinatorFile;

  /** @param nodeFlags for example --cpu-prof */
  static async start(
    runDir: string,
    { configFile, tokenFile }: LoadInput,
    nodeFlags: readonly string[] = [],
  ): Promise<CoordinatorProcess> {
    const bin = join(packageRoot, "bin", "troupe.mjs");
    const args = [
      ...nodeFlags,
      bin,
      "coordinator",
      configFile,
      "--run-dir",
      runDir,
      "--token-file",
      tokenFile,
    ];
    const child = spawn(process.execPath, args, {
      stdio: ["ignore", "ignore", "pipe"],
      env: { ...process.env, TROUPE_SKIP_BUILD: "1", NO_COLOR: "1" },
    });
    const process_ = new CoordinatorProcess(child, runDir);
    const gone = new AbortController();
    child.once("exit", () => gone.abort());
    const file = await waitForCoordinator(runDir, () => child.pid, START_MS, gone.signal);
    if (file === undefined) throw process_.death();
    process_.file = file;
    return process_;
  }

  get isAlive(): boolean {
    return this.child.exitCode === null && this.child.signalCode === null;
  }

  /** Why there is no coordinator any more, with its last words. */
  death(): TroupeError {
    return new TroupeError("INTERNAL", `load: the coordinator ended: ${this.said.trim()}`);
  }

  /** Its own metrics: value by series, labels as they are written. */
  async metrics(): Promise<Map<string, number>> {
    const { httpAddress } = this.file;
    const url = /^https?:/.test(httpAddress) ? httpAddress : `http://${httpAddress}`;
    const text = await (await fetch(`${url}/metrics`)).text();
    const series = new Map<string, number>();
    for (const line of text.split("\n")) {
      if (line === "" || line.startsWith("#")) continue;
      const cut = line.lastIndexOf(" ");
      series.set(line.slice(0, cut), Number(line.slice(cut + 1)));
    }
    return series;
  }

  /** Resident memory, bytes. */
  async residentBytes(): Promise<number> {
    const status = await readFile(`/proc/${this.child.pid}/status`, "utf8").catch(() => undefined);
    const kilobytes = status === undefined ? undefined : /^VmRSS:\s+(\d+)/m.exec(status)?.[1];
    if (kilobytes !== undefined) return Number(kilobytes) * 1024;
    return (await this.metrics()).get("process_resident_memory_bytes") ?? NaN;
  }

  /** Records and the experiences beside them. */
  async journalBytes(): Promise<number> {
    const folder = join(this.runDir, "journal");
    const names = await readdir(folder, { recursive: true }).catch(() => []);
    const sizes = await Promise.all(
      names.map(async (name) => {
        const found = await stat(join(folder, name)).catch(() => undefined); // compacted away meanwhile
        return found?.isFile() === true ? found.size : 0;
      }),
    );
    return sizes.reduce((sum, size) => sum + size, 0);
  }

  async stop(): Promise<void> {
    if (!this.isAlive) return;
    const exited = once(this.child, "exit");
    this.child.kill("SIGTERM");
    const timer = setTimeout(() => this.child.kill("SIGKILL"), EXIT_MS);
    await exited;
    clearTimeout(timer);
  }
}
