/** Does a run fit this machine? Asked by `troupe doctor`, and by every command that starts a run before it starts anything. */
import { readFileSync } from "node:fs";
import { freemem, totalmem } from "node:os";
import type { Config } from "../config/schema.js";
import { configError, errorCodeOf } from "../shared/errors.js";
import { estimateMemory, type MemoryEstimate } from "./memory-estimate.js";

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

/** Which processes of the run are on this machine. */
export type LocalProcesses = "all" | "coordinator";

/**
 * A note when the run needs more than is free now, null when it does not, or when that cannot be told because the
 * model cannot be read: the run itself says what is wrong with it.
 * @throws {TroupeError} CONFIG when it needs more than the machine has, naming what would lower it
 */
export async function checkMemoryFits(
  config: Config,
  machine = machineMemory(),
  local: LocalProcesses = "all",
): Promise<string | null> {
  let estimate: MemoryEstimate;
  try {
    estimate = await estimateMemory(config);
    if (local === "coordinator") estimate = coordinatorOnly(estimate);
  } catch (error) {
    if (errorCodeOf(error) === "DATA") return null;
    throw error;
  }
  const needs = `${describeNeeds(estimate)} need about ${gib(estimate.totalBytes)}`;
  if (estimate.totalBytes > machine.usableBytes) {
    throw configError(
      `this run does not fit this machine: ${needs}, and it has ${gib(machine.usableBytes)}. Lower ${knobs(config).join(", ")}; troupe doctor --config shows where it goes`,
    );
  }
  if (estimate.totalBytes <= machine.freeBytes) return null;
  return `${needs}, and ${gib(machine.freeBytes)} of memory are free now`;
}

function coordinatorOnly(estimate: MemoryEstimate): MemoryEstimate {
  const processes = estimate.processes.filter(({ role }) => role === "coordinator");
  return { ...estimate, processes, totalBytes: processes.reduce((sum, { bytes }) => sum + bytes, 0) };
}

/** Settings that lower what the run needs, those that do most first. */
export function knobs({ cluster, engine, model }: Config): string[] {
  return [
    ...(cluster.learners > 1 ? [`cluster.learners (${cluster.learners}; results stay the same)`] : []),
    ...(cluster.rollouts > 1 ? [`cluster.rollouts (${cluster.rollouts})`] : []),
    ...(engine.recompute === "none" ? ["what gradients keep, with engine.recompute: layers"] : []),
    ...(engine.frozenWeights === "f32" && ["auto", "onnx"].includes(engine.name) && engine.provider === "cpu"
      ? ["reference and reward model on rollout workers, with engine.frozenWeights: int8"]
      : []),
    `engine.microBatchTokens (${engine.microBatchTokens})`,
    ...(model.lora === null ? ["what is trained, with model.lora: {}"] : []),
    model.path === null ? "model.fresh.layers and hidden" : "model.path, to a smaller model",
    "data.maxPromptTokens, data.maxResponseTokens and generation.maxNewTokens",
    "generation.slots",
  ];
}

export const describeNeeds = ({ processes }: MemoryEstimate): string =>
  processes
    .filter(({ role }) => role !== "launcher")
    .map(({ role, count, bytes }) => `${count} ${role}${count === 1 ? "" : "s"} of ${gib(bytes)}`)
    .join(", ");

export const gib = (bytes: number): string =>
  bytes < 2 ** 30 ? `${Math.round(bytes / 2 ** 20)} MiB` : `${(bytes / 2 ** 30).toFixed(1)} GiB`;
