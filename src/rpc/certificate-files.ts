/** A folder of certificates: an authority, and the identities of a coordinator and of its workers and tools. */
import { existsSync } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import { configError, storageError } from "../shared/errors.js";
import { createAuthority, issue } from "./certificate.js";

export interface CertificateRequest {
  /** Names and addresses of the coordinator besides this machine's. */
  readonly hosts: readonly string[];
  readonly days: number;
  /** The server certificate is for several that call each other with it, and there is no other client. */
  readonly areForPeers?: boolean;
  readonly now: Date;
}

const DAY_MS = 86_400_000;
/** Machines whose clocks run behind by less than this take the certificates at once. */
const CLOCK_SKEW_MS = 3_600_000;

/**
 * Writes ca, server and, except for peers, client, each as `.crt` (0644) and `.key` (0600).
 * @returns the names the server certificate is for, and when all of them expire
 * @throws {TroupeError} CONFIG when the folder holds one of the files already or a name is none; STORAGE
 */
export async function writeCertificates(
  dir: string,
  { hosts, days, areForPeers = false, now }: CertificateRequest,
): Promise<{ names: readonly string[]; until: Date }> {
  const until = new Date(now.getTime() + days * DAY_MS);
  const validity = { from: new Date(now.getTime() - CLOCK_SKEW_MS), until };
  const names = [...new Set(["localhost", "127.0.0.1", "::1", hostname(), ...hosts])];
  const authority = createAuthority(`troupe authority ${now.toISOString()}`, validity);
  const identities = {
    ca: authority,
    ...(areForPeers
      ? { server: issue(authority, "peer", "troupe server", names, validity) }
      : {
          server: issue(authority, "server", "troupe coordinator", names, validity),
          client: issue(authority, "client", "troupe worker", [], validity),
        }),
  };
  const files = Object.entries(identities).flatMap(([name, { certificate, privateKey }]) => [
    { path: join(dir, `${name}.key`), text: privateKey, mode: 0o600 },
    { path: join(dir, `${name}.crt`), text: certificate, mode: 0o644 },
  ]);
  const taken = files.find(({ path }) => existsSync(path));
  if (taken !== undefined)
    throw configError(
      `${taken.path} exists already; processes that trust it would stop trusting each other. Choose another folder, or delete the old files first`,
    );
  try {
    await mkdir(dir, { recursive: true, mode: 0o700 });
    // "wx": never through a link, never over a file that appeared meanwhile.
    for (const { path, text, mode } of files) await writeFile(path, text, { mode, flag: "wx" });
  } catch (cause) {
    throw storageError(`cannot write certificates to ${dir}; check that the folder is writable`, { cause });
  }
  return { names, until };
}
