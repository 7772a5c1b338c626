/**
 * A coordinator's host between two others, whose only way to each other leads through it and can be closed while both
 * still reach the coordinator.
 *
 *   left host ── coordinator host ── right host
 */
import { command, Hosts, ID, ip, layCable, whyNot } from "./hosts.js";

export class ThreeHosts extends Hosts<"middle" | "left" | "right"> {
  constructor() {
    super({ middle: `troupe-m${ID}`, left: `troupe-l${ID}`, right: `troupe-r${ID}` });
  }

  /** Of the coordinator, as that host sees it. */
  addressFor(host: "left" | "right"): string {
    return `198.${host === "left" ? 18 : 19}.${ID}.1`;
  }

  protected override connect(): void {
    for (const host of ["left", "right"] as const) {
      const gateway = this.addressFor(host);
      const cable = `tr${host[0]}${ID}`;
      layCable(
        { device: `${cable}a`, namespace: this.namespaces.middle, address: gateway },
        { device: `${cable}b`, namespace: this.namespaces[host], address: gateway.replace(/\.1$/, ".2") },
      );
      ip("-n", this.namespaces[host], "route", "add", "default", "via", gateway);
    }
    this.letThrough(true);
  }

  /** Whether packets from left to right, and back, arrive. When not they vanish, and nobody is told. */
  letThrough(isOpen: boolean): void {
    const set = `net.ipv4.ip_forward=${isOpen ? 1 : 0}`;
    command("ip", "netns", "exec", this.namespaces.middle, "sysctl", "-qw", set);
  }
}

/** Why three hosts cannot be had here; "" when they can. */
export const whyNoThreeHosts = (): string => whyNot(new ThreeHosts());
