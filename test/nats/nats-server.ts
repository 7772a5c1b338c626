/** A real nats-server for tests, with JetStream in a folder of its own. */
import { spawn, spawnSync, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { sleep } from "../../src/shared/abort.js";

const BINARY = process.env.NATS_SERVER ?? "nats-server";

export const hasNatsServer = spawnSync(BINARY, ["--version"]).status === 0;
export const WHY_SKIPPED = hasNatsServer
  ? ""
  : " (skipped: there is no nats-server here; apt-get install nats-server, or name it in NATS_SERVER)";

export class NatsServer {
  private constructor(
    private child: ChildProcess,
    private readonly folder: string,
    readonly url: string,
  ) {}

  static async start(): Promise<NatsServer> {
    const folder = mkdtempSync(join(tmpdir(), "troupe-nats-"));
    const child = launch(folder, -1);
    try {
      return new NatsServer(child, folder, await addressIn(folder, child));
    } catch (error) {
      child.kill("SIGKILL");
      throw error;
    }
  }

  /** Ends the server without warning; what it acknowledged stays in its folder. */
  async kill(): Promise<void> {
    this.child.kill("SIGKILL");
    if (this.child.exitCode === null && this.child.signalCode === null) await once(this.child, "exit");
  }

  /** Stops it from answering; what reaches its sockets waits. */
  pause(): void {
    this.child.kill("SIGSTOP");
  }

  resume(): void {
    this.child.kill("SIGCONT");
  }

  /** Starts it again on the same port and folder. */
  async restart(): Promise<void> {
    const port = Number(this.url.split(":").at(-1));
    this.child = launch(this.folder, port);
    await addressIn(this.folder, this.child);
  }

  async stop(): Promise<void> {
    await this.kill();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

function launch(folder: string, port: number): ChildProcess {
  const args = ["--jetstream", "--store_dir", join(folder, "store"), "--addr", "127.0.0.1"];
  return spawn(BINARY, [...args, "--port", String(port), "--ports_file_dir", join(folder)], {
    stdio: "ignore",
  });
}

/** The server writes the port it took into a file. */
async function addressIn(folder: string, child: ChildProcess): Promise<string> {
  for (let i = 0; i < 200; i++) {
    if (child.exitCode !== null) throw new Error(`nats-server ended with exit code ${child.exitCode}`);
    const file = readdirSync(folder).find((name) => name === `nats-server_${child.pid}.ports`);
    if (file !== undefined) {
      const { nats } = JSON.parse(readFileSync(join(folder, file), "utf8") || "{}") as { nats?: string[] };
      if (nats?.[0] !== undefined) return nats[0].replace("nats://", "");
    }
    await sleep(50);
  }
  throw new Error("nats-server did not write its ports within 10 s");
}
