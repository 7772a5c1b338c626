/**
 * A coordinator's host between two others: network namespaces whose only way to each other leads through it, and can be
 * closed while both still reach the coordinator.
 *
 *   left host ── coordinator host ── right host
 */
import { spawn, spawnSync, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { closeSync, openSync } from "node:fs";

/** A number of this process; 198.18.0.0/15 is for tests of networks (RFC 2544). */
const ID = process.pid % 250;
const HOSTS = { middle: `troupe-m${ID}`, left: `troupe-l${ID}`, right: `troupe-r${ID}` } as const;
export type HostName = keyof typeof HOSTS;

function run(program: string, ...args: string[]): void {
  const { status, stderr, error } = spawnSync(program, args, { encoding: "utf8" });
  if (status !== 0) throw new Error(`${program} ${args.join(" ")}: ${error?.message ?? stderr.trim()}`);
}

/** Why three hosts cannot be had here; "" when they can. Tries the real thing and takes it down again. */
export function whyNoHosts(): string {
  if (process.platform !== "linux") return "network namespaces are Linux's";
  const hosts = new ThreeHosts();
  try {
    hosts.up();
    return "";
  } catch (error) {
    return (error as Error).message;
  } finally {
    hosts.down();
  }
}

export class ThreeHosts {
  private readonly children: ChildProcess[] = [];

  /** Of the coordinator, as that host sees it. */
  addressFor(host: "left" | "right"): string {
    return `198.${host === "left" ? 18 : 19}.${ID}.1`;
  }

  up(): void {
    for (const namespace of Object.values(HOSTS)) {
      run("ip", "netns", "add", namespace);
      run("ip", "-n", namespace, "link", "set", "lo", "up");
    }
    for (const host of ["left", "right"] as const) {
      const [inner, outer] = [`tr${host[0]}${ID}a`, `tr${host[0]}${ID}b`];
      const gateway = this.addressFor(host);
      const peer = ["type", "veth", "peer", "name", outer, "netns", HOSTS[host]];
      run("ip", "link", "add", inner, "netns", HOSTS.middle, ...peer);
      run("ip", "-n", HOSTS.middle, "addr", "add", `${gateway}/24`, "dev", inner);
      run("ip", "-n", HOSTS[host], "addr", "add", gateway.replace(/\.1$/, ".2/24"), "dev", outer);
      run("ip", "-n", HOSTS.middle, "link", "set", inner, "up");
      run("ip", "-n", HOSTS[host], "link", "set", outer, "up");
      run("ip", "-n", HOSTS[host], "route", "add", "default", "via", gateway);
    }
    this.letThrough(true);
  }

  /** Whether packets from left to right, and back, arrive. When not they vanish, and nobody is told. */
  letThrough(isOpen: boolean): void {
    const set = `net.ipv4.ip_forward=${isOpen ? 1 : 0}`;
    run("ip", "netns", "exec", HOSTS.middle, "sysctl", "-qw", set);
  }

  /** Starts a program on a host, its output appended to `log`. */
  spawn(host: HostName, command: readonly string[], log: string): ChildProcess {
    const output = openSync(log, "a");
    const child = spawn("ip", ["netns", "exec", HOSTS[host], ...command], {
      stdio: ["ignore", output, output],
      detached: true,
      env: { ...process.env, TROUPE_SKIP_BUILD: "1", NO_COLOR: "1" },
    });
    closeSync(output);
    this.children.push(child);
    return child;
  }

  /** Ends everything and takes the hosts down. Safe to call at any time. */
  async stop(): Promise<void> {
    for (const child of this.children) {
      if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) continue;
      process.kill(-child.pid, "SIGKILL");
      await once(child, "exit");
    }
    this.down();
  }

  down(): void {
    for (const namespace of Object.values(HOSTS)) spawnSync("ip", ["netns", "del", namespace]);
  }
}
