/**
 * Two hosts with a cable between them that can be cut. A second cable leads from the first host to this process, as a
 * management network would, so that the run can be watched while the first is cut.
 *
 *   here ──(admin)── coordinator host ──(link)── worker host
 */
import { spawnSync } from "node:child_process";
import { Hosts, ID, ip, layCable, whyNot } from "./hosts.js";

const LINK = `trl${ID}a`;

export class TwoHosts extends Hosts<"coordinator" | "workers"> {
  /** Of the coordinator, as the workers see it. */
  readonly address = `198.18.${ID}.1`;
  /** Of the coordinator, as this process sees it. */
  readonly adminAddress = `198.19.${ID}.1`;

  constructor() {
    super({ coordinator: `troupe-c${ID}`, workers: `troupe-w${ID}` });
  }

  protected override connect(): void {
    const { coordinator, workers } = this.namespaces;
    layCable(
      { device: LINK, namespace: coordinator, address: this.address },
      { device: `trl${ID}b`, namespace: workers, address: `198.18.${ID}.2` },
    );
    layCable(
      { device: `trm${ID}a`, namespace: coordinator, address: this.adminAddress },
      { device: `trm${ID}b`, address: `198.19.${ID}.2` },
    );
  }

  /** Takes the link between the hosts away: packets vanish, nobody is told. */
  cut(): void {
    ip("-n", this.namespaces.coordinator, "link", "set", LINK, "down");
  }

  heal(): void {
    ip("-n", this.namespaces.coordinator, "link", "set", LINK, "up");
  }
}

/** Why two hosts cannot be had here; "" when they can. */
export function whyNoTwoHosts(): string {
  const hosts = new TwoHosts();
  return whyNot(hosts, () => {
    const mount = ["netns", "exec", hosts.namespaces.workers, "mount", "-t", "tmpfs", "none", "/mnt"];
    return spawnSync("ip", mount).status === 0 ? "" : "nothing can be mounted in a namespace here";
  });
}
