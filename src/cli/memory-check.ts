/**
 * Does a run fit this machine? Asked by `troupe doctor`, and by every command that starts a run before it starts
 * anything; for machines elsewhere by the coordinator, when their workers register.
 */
import type { Config } from "../config/schema.js";
import type { AdmitWorker } from "../coordinator/membership-service.js";
import { configError, errorCodeOf } from "../shared/errors.js";
import { machineMemory } from "../shared/machine-memory.js";
import { advice, knobs } from "./memory-knobs.js";
import {
  estimateMemory,
  type LocalProcesses,
  type MemoryEstimate,
  type ProcessEstimate,
} from "./memory-estimate.js";

/**
 * A note when the run needs more than is free now, null when it does not, or when that cannot be told because the
 * model cannot be read: the run itself says what is wrong with it.
 * @throws {TroupeError} CONFIG when it needs more than the machine has, naming what would lower it; with
 *   `cluster.memoryCheck: false` that is a note too
 */
export async function checkMemoryFits(
  config: Config,
  machine = machineMemory(),
  local: LocalProcesses = "all",
): Promise<string | null> {
  const whole = await estimateIfReadable(config, local);
  if (whole === null) return null;
  const here = (of: MemoryEstimate) => (local === "coordinator" ? ofProcesses(of, { coordinator: 1 }) : of);
  const estimate = here(whole);
  const needs = needsOf(estimate);
  if (estimate.totalBytes > machine.usableBytes) {
    const refusal = refusalText(
      "this run does not fit this machine",
      estimate,
      machine.usableBytes,
      await knobs(config, (of) => here(of).totalBytes, local),
    );
    if (config.cluster.memoryCheck) throw configError(refusal);
    return refusal;
  }
  if (estimate.totalBytes <= machine.freeBytes) return null;
  return `${needs}, and ${gib(machine.freeBytes)} of memory are free now`;
}

/**
 * What the coordinator asks of workers that register: that their machine holds them and those started there together
 * with them. Undefined when it is not to be asked, or cannot be told.
 */
export async function workerAdmission(config: Config): Promise<AdmitWorker | undefined> {
  const whole = config.cluster.memoryCheck ? await estimateIfReadable(config) : null;
  if (whole === null) return undefined;
  const lowersEach = await knobs(config, ({ processes }) =>
    processes.reduce((sum, { role, bytes }) => sum + (role === "coordinator" ? 0 : bytes), 0),
  );
  return ({ host, memoryBytes, rollouts, learners }) => {
    const estimate = ofProcesses(whole, { rollout: rollouts, learner: learners });
    if (estimate.totalBytes <= memoryBytes) return;
    const started = [
      ...(learners > 1 ? [`the learners there (${learners}; results stay the same)`] : []),
      ...(rollouts > 1 ? [`the rollouts there (${rollouts})`] : []),
    ];
    const lower = [...started, ...lowersEach];
    throw configError(
      refusalText(`the workers started on ${host} do not fit it`, estimate, memoryBytes, lower),
    );
  };
}

/** Null when the model cannot be read. */
async function estimateIfReadable(config: Config, local?: LocalProcesses): Promise<MemoryEstimate | null> {
  try {
    return await estimateMemory(config, local);
  } catch (error) {
    if (errorCodeOf(error) === "DATA") return null;
    throw error;
  }
}

type Counts = Readonly<Partial<Record<ProcessEstimate["role"], number>>>;

/** The same for so many processes of each role. */
function ofProcesses(estimate: MemoryEstimate, counts: Counts): MemoryEstimate {
  const processes = estimate.processes
    .map((process) => ({ ...process, count: counts[process.role] ?? 0 }))
    .filter(({ count }) => count > 0);
  return {
    ...estimate,
    processes,
    totalBytes: processes.reduce((sum, { count, bytes }) => sum + count * bytes, 0),
  };
}

const needsOf = (estimate: MemoryEstimate): string =>
  `${describeNeeds(estimate)} need about ${gib(estimate.totalBytes)}`;

const refusalText = (
  what: string,
  estimate: MemoryEstimate,
  hasBytes: number,
  lower: readonly string[],
): string =>
  `${what}: ${needsOf(estimate)}, and it has ${gib(hasBytes)}.${advice(lower)} troupe doctor --config shows where it goes; cluster.memoryCheck: false starts it all the same`;

const describeNeeds = ({ processes }: MemoryEstimate): string =>
  processes
    .filter(({ role }) => role !== "launcher")
    .map(({ role, count, bytes }) => `${count} ${role}${count === 1 ? "" : "s"} of ${gib(bytes)}`)
    .join(", ");

export const gib = (bytes: number): string =>
  bytes < 2 ** 30 ? `${Math.round(bytes / 2 ** 20)} MiB` : `${(bytes / 2 ** 30).toFixed(1)} GiB`;
