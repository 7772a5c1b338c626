/** Real nats-servers for tests, with JetStream in a folder of their own: one, or a cluster of three. */
import { spawn, spawnSync, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { createServer } from "node:net";
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
    private readonly args: readonly string[],
    private readonly env: NodeJS.ProcessEnv,
  ) {}

  /** @param args besides those for a port and a folder of its own */
  static async start(args: readonly string[] = [], env: NodeJS.ProcessEnv = {}): Promise<NatsServer> {
    const folder = mkdtempSync(join(tmpdir(), "troupe-nats-"));
    const child = launch(folder, -1, args, env);
    try {
      return new NatsServer(child, folder, await addressIn(folder, child), args, env);
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
    this.child = launch(this.folder, port, this.args, this.env);
    await addressIn(this.folder, this.child);
  }

  async stop(): Promise<void> {
    await this.kill();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

const SERVERS = 3;

/** Three servers, each of which may be lost. */
export class NatsCluster {
  private constructor(private readonly servers: ReadonlyMap<string, NatsServer>) {}

  /** @param args for each of them, with its name in NATS_NAME */
  static async start(args: readonly string[] = [], env: NodeJS.ProcessEnv = {}): Promise<NatsCluster> {
    const ports = await Promise.all(Array.from({ length: SERVERS }, freePort));
    const routes = ports.map((port) => `nats://127.0.0.1:${port}`);
    const servers = new Map<string, NatsServer>();
    await Promise.all(
      routes.map(async (route, i) => {
        const name = `nats-${i + 1}`;
        const own = ["--server_name", name, "--cluster_name", "troupe", "--cluster", route];
        const all = [...args, ...own, "--routes", routes.join(",")];
        servers.set(name, await NatsServer.start(all, { ...env, NATS_NAME: name }));
      }),
    );
    return new NatsCluster(servers);
  }

  /** Their addresses, as `nats://` and cluster.durable.servers take them. */
  get url(): string {
    return [...this.servers.values()].map(({ url }) => url).join(",");
  }

  named(name: string): NatsServer {
    const server = this.servers.get(name);
    if (server === undefined) throw new Error(`no server is called ${name}`);
    return server;
  }

  async stop(): Promise<void> {
    await Promise.all([...this.servers.values()].map((server) => server.stop()));
  }
}

export async function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const address = server.address();
      server.close(() => resolve(typeof address === "object" && address !== null ? address.port : 0));
    });
  });
}

function launch(folder: string, port: number, more: readonly string[], env: NodeJS.ProcessEnv): ChildProcess {
  const args = ["--jetstream", "--store_dir", join(folder, "store"), "--addr", "127.0.0.1", ...more];
  return spawn(BINARY, [...args, "--port", String(port), "--ports_file_dir", join(folder)], {
    stdio: "ignore",
    env: { ...process.env, ...env },
  });
}

/** The server writes the port it took into a file. */
async function addressIn(folder: string, child: ChildProcess): Promise<string> {
  for (let i = 0; i < 200; i++) {
    if (child.exitCode !== null) throw new Error(`nats-server ended with exit code ${child.exitCode}`);
    const file = readdirSync(folder).find((name) => name === `nats-server_${child.pid}.ports`);
    if (file !== undefined) {
      const { nats } = JSON.parse(readFileSync(join(folder, file), "utf8") || "{}") as { nats?: string[] };
      if (nats?.[0] !== undefined) return nats[0].replace(/^\w+:\/\//, "");
    }
    await sleep(50);
  }
  throw new Error("nats-server did not write its ports within 10 s");
}
