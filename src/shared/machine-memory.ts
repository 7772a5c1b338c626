/** What memory this machine has, and whether a container bounds it. */
import { readFileSync } from "node:fs";
import { freemem, totalmem } from "node:os";

export interface MachineMemory {
  /** What processes here may use altogether. */
  readonly usableBytes: number;
  /** What is left of it now; caches of files count as free. */
  readonly freeBytes: number;
  readonly isContainerLimit: boolean;
}

export function machineMemory(): MachineMemory {
  const limit = cgroupLimitBytes(readText) ?? Infinity;
  const usableBytes = Math.min(totalmem(), limit);
  return {
    usableBytes,
    freeBytes: Math.min(availableBytes(), usableBytes),
    isContainerLimit: limit < totalmem(),
  };
}

function availableBytes(): number {
  const kib = /^MemAvailable:\s+(\d+) kB/m.exec(readText("/proc/meminfo") ?? "")?.[1];
  return kib === undefined ? freemem() : Number(kib) * 1024; // without it, not Linux
}

/**
 * The least memory limit of the control groups this process is in: its own (of a Slurm job, of a systemd unit), those
 * around it, and the root one, which in a container is the container's.
 * @param read text of a file; undefined where there is none
 * @returns bytes; undefined without a limit
 */
export function cgroupLimitBytes(read: (path: string) => string | undefined): number | undefined {
  // Lines are "0::/path" (version 2) and "4:memory:/path" (version 1). Inside a container the path may be the host's:
  // what is not there is passed over.
  const lines = (read("/proc/self/cgroup") ?? "").split("\n").map((line) => /^\d+:([^:]*):(.*)$/.exec(line));
  const pathOf = (isOurs: (controllers: string[]) => boolean) =>
    lines.find((line) => line !== null && isOurs(line[1].split(",")))?.[2] ?? "/";
  const files = [
    ...levelsOf(pathOf(([first]) => first === "")).map((path) => `/sys/fs/cgroup${path}/memory.max`),
    ...levelsOf(pathOf((controllers) => controllers.includes("memory"))).map(
      (path) => `/sys/fs/cgroup/memory${path}/memory.limit_in_bytes`,
    ),
  ];
  // Version 1 writes a number near 2^63 for "no limit", version 2 the word max.
  const limits = files
    .map((file) => Number.parseInt(read(file) ?? "", 10))
    .filter((bytes) => bytes > 0 && bytes < 2 ** 60);
  return limits.length === 0 ? undefined : Math.min(...limits);
}

/** "/a/b" -> "/a/b", "/a", "" */
function levelsOf(path: string): string[] {
  const parts = path.split("/").filter((part) => part !== "");
  return Array.from({ length: parts.length + 1 }, (_, i) =>
    parts
      .slice(0, parts.length - i)
      .map((part) => `/${part}`)
      .join(""),
  );
}

function readText(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return undefined; // not this version of cgroups, or not Linux
  }
}
