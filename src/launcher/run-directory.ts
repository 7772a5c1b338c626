/**
 * The run directory as the launcher sees it: one launcher at a time, no run overwritten by accident, no run
 * continued with another configuration by accident.
 *
 *   config.yaml       the complete configuration, also what the coordinator process reads
 *   launcher.lock     pid of the launcher that holds the directory
 *   coordinator.json  {pid, grpcAddress, httpAddress, runId, startedAt}, written by the coordinator when it listens
 *   logs/<name>.log   everything a process wrote to stdout and stderr
 *   summary.json      results
 */
import { existsSync, readFileSync } from "node:fs";
import { link, mkdir, readFile, rm, unlink, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { parse, stringify } from "yaml";
import { refuseDrift } from "../config/drift.js";
import type { Config } from "../config/schema.js";
import { sleep } from "../shared/abort.js";
import { configError, storageError, TroupeError } from "../shared/errors.js";
import { replaceSynced } from "../shared/synced-files.js";

export interface RunDirectory {
  /** Absolute. */
  readonly path: string;
  /** It holds a run that is to be continued. */
  readonly isResumed: boolean;
  /** It goes on although settings that change results differ. */
  readonly allowsDrift: boolean;
  readonly configPath: string;
  readonly logDir: string;
  /** Lets another launcher in. Idempotent. */
  release(): Promise<void>;
}

export interface OpenRunDirectoryOptions {
  readonly config: Config;
  /** "auto" continues the run the directory holds, if it holds one. */
  readonly resume?: "auto";
  /** Continue although settings that change results differ. */
  readonly allowDrift?: boolean;
  /** How long a coordinator left over from a launcher that died may take to end itself. @default 10_000 */
  readonly leftoverMs?: number;
}

const TRACES_OF_A_RUN = ["config.yaml", "coordinator.json", "journal", "checkpoints", "summary.json"];

/**
 * Locks the directory, making it if needed, and writes `config.yaml`.
 * @throws {TroupeError} RUN_DIR_IN_USE when another launcher or a coordinator works in it
 * @throws {TroupeError} CONFIG when it holds a run and `resume` is not given, or that run's settings differ
 */
export async function openRunDirectory(
  path: string,
  options: OpenRunDirectoryOptions,
): Promise<RunDirectory> {
  const folder = resolve(path);
  await mkdir(folder, { recursive: true }).catch((error: NodeJS.ErrnoException) => {
    throw storageError(`run directory ${folder} cannot be made: ${error.message}`, { cause: error });
  });
  const release = await lock(folder);
  try {
    await noCoordinatorIn(folder, options.leftoverMs ?? 10_000);
    const isExisting = TRACES_OF_A_RUN.some((name) => existsSync(join(folder, name)));
    if (isExisting && options.resume !== "auto") {
      throw configError(
        `run directory ${folder} holds a run already; continue it with --resume auto, or name another --run-dir`,
      );
    }
    const configPath = join(folder, "config.yaml");
    const allowsDrift = options.allowDrift === true;
    if (isExisting && !allowsDrift) await refuseDriftFrom(configPath, options.config);
    await writeAtomically(
      configPath,
      `# The complete configuration of this run.\n${stringify(options.config)}`,
    );
    const logDir = join(folder, "logs");
    return { path: folder, isResumed: isExisting, allowsDrift, configPath, logDir, release };
  } catch (error) {
    await release();
    throw error;
  }
}

/** `runs/<name>-20260131-142530`, in local time. */
export function defaultRunDirectory(name: string, now: Date): string {
  const two = (value: number) => String(value).padStart(2, "0");
  const day = `${now.getFullYear()}${two(now.getMonth() + 1)}${two(now.getDate())}`;
  return join(
    "runs",
    `${name}-${day}-${two(now.getHours())}${two(now.getMinutes())}${two(now.getSeconds())}`,
  );
}

export async function writeAtomically(path: string, text: string): Promise<void> {
  try {
    await replaceSynced(path, text, `${path}.tmp-${process.pid}`);
  } catch (error) {
    throw storageError(`${path} cannot be written: ${(error as Error).message}`, { cause: error });
  }
}

async function lock(folder: string): Promise<() => Promise<void>> {
  const lockPath = join(folder, "launcher.lock");
  const ownPath = `${lockPath}.${process.pid}`;
  const identity = JSON.stringify({ pid: process.pid, started: processStart(process.pid) });
  await writeFile(ownPath, identity).catch((error: NodeJS.ErrnoException) => {
    throw storageError(`run directory ${folder} is not writable: ${error.message}`, { cause: error });
  });
  try {
    // A link appears with its content or not at all, and never replaces: two launchers cannot both get it.
    for (let attempt = 0; ; attempt++) {
      try {
        await link(ownPath, lockPath);
        break;
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
        const holder = await holderOf(lockPath);
        if (holder !== undefined || attempt >= 3) {
          throw new TroupeError(
            "RUN_DIR_IN_USE",
            `run directory ${folder} is in use by the launcher with pid ${holder ?? "unknown"}; stop it, or name another --run-dir`,
          );
        }
        await unlink(lockPath).catch(() => undefined); // left by a launcher that was killed
      }
    }
  } finally {
    await rm(ownPath, { force: true });
  }
  return async () => {
    const holder = await readFile(lockPath, "utf8").catch(() => "");
    if (holder === identity) await rm(lockPath, { force: true });
  };
}

/** Pid of the living process that holds the lock. */
async function holderOf(lockPath: string): Promise<number | undefined> {
  try {
    const { pid, started } = JSON.parse(await readFile(lockPath, "utf8")) as {
      pid: number;
      started: string | null;
    };
    // A pid can be given to another process later; its start time then differs.
    return isAlive(pid) && (started === null || processStart(pid) === started) ? pid : undefined;
  } catch {
    return undefined;
  }
}

/** Waits until a coordinator whose launcher died has ended itself. */
async function noCoordinatorIn(folder: string, patienceMs: number): Promise<void> {
  const deadlineMs = performance.now() + patienceMs;
  for (;;) {
    const pid = coordinatorPidIn(folder);
    if (pid === undefined) return;
    if (performance.now() >= deadlineMs) {
      throw new TroupeError(
        "RUN_DIR_IN_USE",
        `run directory ${folder} is in use by the coordinator with pid ${pid}; stop it, or name another --run-dir`,
      );
    }
    await sleep(200);
  }
}

function coordinatorPidIn(folder: string): number | undefined {
  try {
    const { pid } = JSON.parse(readFileSync(join(folder, "coordinator.json"), "utf8")) as { pid: number };
    if (!isAlive(pid)) return undefined;
    // After a reboot the number may belong to anything.
    const commandLine = existsSync("/proc/self/cmdline")
      ? readFileSync(`/proc/${pid}/cmdline`, "utf8")
      : "coordinator";
    return commandLine.includes("coordinator") ? pid : undefined;
  } catch {
    return undefined;
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}

/** When a process started, in clock ticks since boot; null where the system does not tell. */
function processStart(pid: number): string | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    // Field 22; the second one, the name, may hold spaces and ends with the last ")".
    return stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19] ?? null;
  } catch {
    return null;
  }
}

async function refuseDriftFrom(configPath: string, config: Config): Promise<void> {
  const text = await readFile(configPath, "utf8").catch(() => undefined);
  if (text === undefined) return; // ended before it was written
  refuseDrift(parse(text, { maxAliasCount: 0 }), config, configPath);
}
