/** Finding the coordinator of a run by its directory. */
import { join } from "node:path";
import { sleep } from "../shared/abort.js";
import {
  coordinatorFilePath,
  readCoordinatorFile,
  type CoordinatorFile,
} from "../shared/coordinator-file.js";
import { configError, TroupeError } from "../shared/errors.js";

/**
 * Waits until the coordinator process `pid()` listens. It reads its data, model and journal first, and a busy machine
 * stretches that, so a slow start is told long before it is a failure; one that ends is its supervisor's to see.
 * @param pid the wanted process; changes when it is restarted, and the time starts again
 * @param slow told every `intervalMs` for how long the process has not listened
 * @returns undefined when `signal` aborted
 * @throws {TroupeError} UNREACHABLE when one process did not listen within `timeoutMs`
 */
export async function waitForCoordinator(
  runDir: string,
  pid: () => number | undefined,
  timeoutMs: number,
  signal: AbortSignal,
  slow?: { readonly intervalMs: number; readonly tell: (waitedMs: number) => void },
): Promise<CoordinatorFile | undefined> {
  let waitingFor = pid();
  let sinceMs = performance.now();
  let told = 0;
  while (!signal.aborted) {
    const file = await readCoordinatorFile(runDir);
    const current = pid();
    if (file !== undefined && file.pid === current) return file;
    if (current !== waitingFor) [waitingFor, sinceMs, told] = [current, performance.now(), 0];
    const waitedMs = performance.now() - sinceMs;
    if (current !== undefined && slow !== undefined && waitedMs >= (told + 1) * slow.intervalMs) {
      told = Math.floor(waitedMs / slow.intervalMs);
      slow.tell(waitedMs);
    }
    if (current !== undefined && waitedMs > timeoutMs) {
      throw new TroupeError(
        "UNREACHABLE",
        `the coordinator did not listen within ${timeoutMs / 1000} s; see ${join(runDir, "logs", "coordinator-0.log")}`,
      );
    }
    await sleep(50, signal);
  }
  return undefined;
}

/** The address a command should talk to: as given, or from the run directory. @throws {TroupeError} CONFIG */
export async function addressOf(
  coordinator: string | undefined,
  runDir: string | undefined,
): Promise<string> {
  if (coordinator !== undefined) return coordinator;
  if (runDir === undefined) throw configError("which run? give --coordinator HOST:PORT or --run-dir DIR");
  const file = await readCoordinatorFile(runDir);
  if (file === undefined)
    throw configError(`${coordinatorFilePath(runDir)} is missing: no coordinator has listened there yet`);
  return file.grpcAddress;
}

/** A link to click, from `host:port` or a URL. */
export const urlOf = (httpAddress: string): string =>
  httpAddress.startsWith("http") ? httpAddress : `http://${httpAddress}`;

export const portOf = (address: string): number => Number(/:(\d+)(?:\/.*)?$/.exec(address)?.[1] ?? 0);
