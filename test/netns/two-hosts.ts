/**
 * Two hosts on one machine: two Linux network namespaces with an address each and a cable between them that can be
 * cut. A second cable leads from the first host to this process, as a management network would, so that the run can
 * be watched while the first is cut.
 *
 *   here ──(admin)── coordinator host ──(link)── worker host
 */
import { spawn, spawnSync, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { openSync, closeSync } from "node:fs";

/** A number of this process, for names and addresses no other test uses; 198.18.0.0/15 is for tests of networks (RFC 2544). */
const ID = process.pid % 250;
const COORDINATOR = `troupe-c${ID}`;
const WORKERS = `troupe-w${ID}`;

function ip(...args: string[]): void {
  const { status, stderr, error } = spawnSync("ip", args, { encoding: "utf8" });
  if (status !== 0) throw new Error(`ip ${args.join(" ")}: ${error?.message ?? stderr.trim()}`);
}

/** Why two hosts cannot be had here; "" when they can. Tries the real thing and takes it down again. */
export function whyNoNamespaces(): string {
  if (process.platform !== "linux") return "network namespaces are Linux's";
  const hosts = new TwoHosts();
  try {
    hosts.up();
    const inside = spawnSync("ip", ["netns", "exec", WORKERS, "mount", "-t", "tmpfs", "none", "/mnt"]);
    return inside.status === 0 ? "" : "nothing can be mounted in a namespace here";
  } catch (error) {
    return (error as Error).message;
  } finally {
    hosts.down();
  }
}

export class TwoHosts {
  /** Of the coordinator, as the workers see it. */
  readonly address = `198.18.${ID}.1`;
  /** Of the coordinator, as this process sees it. */
  readonly adminAddress = `198.19.${ID}.1`;
  private readonly children: ChildProcess[] = [];

  up(): void {
    const cable = (name: string) => [`tr${name}${ID}a`, `tr${name}${ID}b`];
    for (const namespace of [COORDINATOR, WORKERS]) {
      ip("netns", "add", namespace);
      ip("-n", namespace, "link", "set", "lo", "up");
    }
    const [linkA, linkB] = cable("l");
    ip("link", "add", linkA, "netns", COORDINATOR, "type", "veth", "peer", "name", linkB, "netns", WORKERS);
    ip("-n", COORDINATOR, "addr", "add", `${this.address}/24`, "dev", linkA);
    ip("-n", WORKERS, "addr", "add", `198.18.${ID}.2/24`, "dev", linkB);
    const [adminA, adminB] = cable("m");
    ip("link", "add", adminA, "netns", COORDINATOR, "type", "veth", "peer", "name", adminB);
    ip("-n", COORDINATOR, "addr", "add", `${this.adminAddress}/24`, "dev", adminA);
    ip("addr", "add", `198.19.${ID}.2/24`, "dev", adminB);
    ip("-n", COORDINATOR, "link", "set", linkA, "up");
    ip("-n", WORKERS, "link", "set", linkB, "up");
    ip("-n", COORDINATOR, "link", "set", adminA, "up");
    ip("link", "set", adminB, "up");
  }

  /** Takes the link between the hosts away: packets vanish, nobody is told. */
  cut(): void {
    ip("-n", COORDINATOR, "link", "set", `trl${ID}a`, "down");
  }

  heal(): void {
    ip("-n", COORDINATOR, "link", "set", `trl${ID}a`, "up");
  }

  /**
   * Starts a program on a host, its output appended to `log`. `hidden` is a folder the host does not have: an empty
   * one lies over it, so that files can only come over the network.
   */
  spawn(
    host: "coordinator" | "workers",
    command: readonly string[],
    { log, hidden }: { log: string; hidden?: string },
  ): ChildProcess {
    const output = openSync(log, "a");
    const namespace = host === "coordinator" ? COORDINATOR : WORKERS;
    const script = hidden === undefined ? 'exec "$@"' : `mount -t tmpfs none '${hidden}' && exec "$@"`;
    const child = spawn("ip", ["netns", "exec", namespace, "sh", "-c", script, "sh", ...command], {
      stdio: ["ignore", output, output],
      detached: true,
      env: { ...process.env, TROUPE_SKIP_BUILD: "1", NO_COLOR: "1" },
    });
    closeSync(output);
    this.children.push(child);
    return child;
  }

  /** Ends everything on both hosts and takes them down. Safe to call at any time. */
  async stop(): Promise<void> {
    for (const child of this.children) {
      if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) continue;
      process.kill(-child.pid, "SIGKILL");
      await once(child, "exit");
    }
    this.down();
  }

  down(): void {
    // The ends of a cable go with the namespace of either; the admin cable's outer end goes with its other end.
    for (const namespace of [COORDINATOR, WORKERS]) spawnSync("ip", ["netns", "del", namespace]);
  }
}
