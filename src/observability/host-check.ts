/**
 * The defence against DNS rebinding: a page on the attacker's own domain can point that name at 127.0.0.1 and would
 * then be same-origin with this server. It cannot forge the Host header, which still carries the attacker's name.
 *
 * Accepted: IP addresses, `localhost`, this machine's name, names without a dot (Compose services, cluster-local
 * names), `*.svc`, `*.svc.cluster.local`, `*.internal`, and the names given. None of these can be registered in
 * public DNS by a stranger.
 */
import { isIP } from "node:net";
import { hostname } from "node:os";

const PRIVATE_SUFFIXES = [".localhost", ".svc", ".svc.cluster.local", ".internal"];

/** @returns whether a Host header (`name`, `name:port`, `[v6]:port`) is one this process expects */
export function createHostCheck(names: readonly string[]): (host: string | undefined) => boolean {
  const accepted = new Set([hostname(), ...names].map((name) => name.toLowerCase()));
  return (host) => {
    if (host === undefined) return false;
    const match = /^(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9._-]+))(?::\d{1,5})?$/.exec(host);
    if (match === null) return false;
    if (match[1] !== undefined) return isIP(match[1]) === 6;
    const name = match[2].toLowerCase().replace(/\.$/, "");
    if (name === "") return false;
    if (isIP(name) === 4 || accepted.has(name)) return true;
    if (!name.includes(".")) return true;
    return PRIVATE_SUFFIXES.some((suffix) => name.endsWith(suffix));
  };
}
