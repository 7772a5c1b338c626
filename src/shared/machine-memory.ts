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
  const limit = containerLimitBytes() ?? Infinity;
  const usableBytes = Math.min(totalmem(), limit);
  return {
    usableBytes,
    freeBytes: Math.min(availableBytes(), usableBytes),
    isContainerLimit: limit < totalmem(),
  };
}

function availableBytes(): number {
  try {
    const kib = /^MemAvailable:\s+(\d+) kB/m.exec(readFileSync("/proc/meminfo", "utf8"))?.[1];
    if (kib !== undefined) return Number(kib) * 1024;
  } catch {
    // not Linux
  }
  return freemem();
}

function containerLimitBytes(): number | undefined {
  for (const path of ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]) {
    try {
      const bytes = Number(readFileSync(path, "utf8").trim());
      // Version 1 writes a number near 2^63 for "no limit", version 2 the word max.
      if (Number.isFinite(bytes) && bytes < 2 ** 60) return bytes;
    } catch {
      // not this version of cgroups, or none
    }
  }
  return undefined;
}
