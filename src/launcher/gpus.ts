/** Which GPU each process sees. */
import { configError } from "../shared/errors.js";
import type { WorkerRole } from "../shared/roles.js";

/** `"0,1,3"` -> [0, 1, 3]. @throws {TroupeError} CONFIG */
export function parseGpuList(text: string): number[] {
  const ids = text.split(",").map((part) => part.trim());
  const bad = ids.find((id) => !/^\d{1,3}$/.test(id));
  if (bad !== undefined)
    throw configError(`--gpus expects device numbers such as 0,1,2, got ${JSON.stringify(bad)} in "${text}"`);
  const numbers = ids.map(Number);
  if (new Set(numbers).size !== numbers.length) throw configError(`--gpus names a device twice: ${text}`);
  return numbers;
}

/**
 * One GPU per process, in turn: rollout workers from the front of the list, learners from its end, so that both roles
 * spread over the devices and share one only when there are more processes than GPUs.
 */
export function gpuOf(role: WorkerRole, index: number, gpus: readonly number[]): number {
  const position = index % gpus.length;
  return role === "rollout" ? gpus[position] : gpus[gpus.length - 1 - position];
}
