/** Hosts on one machine: Linux network namespaces with addresses of their own, joined by cables (veth pairs). */
import { spawn, spawnSync, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { closeSync, openSync } from "node:fs";

/** A number of this process, for names and addresses no other test uses; 198.18.0.0/15 is for tests of networks (RFC 2544). */
export const ID = process.pid % 250;

/** Runs a program to its end. @throws with what it said when it fails */
export function command(program: string, ...args: readonly string[]): void {
  const { status, stderr, error } = spawnSync(program, args, { encoding: "utf8" });
  if (status !== 0) throw new Error(`${program} ${args.join(" ")}: ${error?.message ?? stderr.trim()}`);
}
export const ip = (...args: readonly string[]): void => command("ip", ...args);

/** One end of a cable. */
export interface CableEnd {
  readonly device: string;
  /** Namespace; undefined: this process's own. */
  readonly namespace?: string;
  readonly address: string;
}

/** Lays a cable between two hosts of one /24 network. It goes with the namespace of either end. */
export function layCable(one: CableEnd, other: CableEnd): void {
  const place = ({ namespace }: CableEnd) => (namespace === undefined ? [] : ["netns", namespace]);
  const peer = ["type", "veth", "peer", "name", other.device];
  ip("link", "add", one.device, ...place(one), ...peer, ...place(other));
  for (const { device, namespace, address } of [one, other]) {
    const at = namespace === undefined ? [] : ["-n", namespace];
    ip(...at, "addr", "add", `${address}/24`, "dev", device);
    ip(...at, "link", "set", device, "up");
  }
}

/** Why such hosts cannot be had here; "" when they can. Tries the real thing and takes it down again. */
export function whyNot(hosts: Hosts<string>, more: () => string = () => ""): string {
  if (process.platform !== "linux") return "network namespaces are Linux's";
  try {
    hosts.up();
    return more();
  } catch (error) {
    return (error as Error).message;
  } finally {
    hosts.down();
  }
}

export abstract class Hosts<Name extends string> {
  readonly #children: ChildProcess[] = [];

  /** @param namespaces of the hosts, by name */
  protected constructor(readonly namespaces: Readonly<Record<Name, string>>) {}

  up(): void {
    for (const namespace of Object.values<string>(this.namespaces)) {
      ip("netns", "add", namespace);
      ip("-n", namespace, "link", "set", "lo", "up");
    }
    this.connect();
  }

  protected abstract connect(): void;

  /**
   * Starts a program on a host, its output appended to `log`. `hidden` is a folder the host does not have: an empty
   * one lies over it, so that files can only come over the network.
   */
  spawn(
    host: Name,
    args: readonly string[],
    { log, hidden }: { log: string; hidden?: string },
  ): ChildProcess {
    const output = openSync(log, "a");
    const script = hidden === undefined ? 'exec "$@"' : `mount -t tmpfs none '${hidden}' && exec "$@"`;
    const child = spawn("ip", ["netns", "exec", this.namespaces[host], "sh", "-c", script, "sh", ...args], {
      stdio: ["ignore", output, output],
      detached: true,
      env: { ...process.env, TROUPE_SKIP_BUILD: "1", NO_COLOR: "1" },
    });
    closeSync(output);
    this.#children.push(child);
    return child;
  }

  /** Ends everything on the hosts and takes them down. Safe to call at any time. */
  async stop(): Promise<void> {
    for (const child of this.#children) {
      if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) continue;
      process.kill(-child.pid, "SIGKILL");
      await once(child, "exit");
    }
    this.down();
  }

  down(): void {
    for (const namespace of Object.values<string>(this.namespaces)) {
      spawnSync("ip", ["netns", "del", namespace]);
    }
  }
}
