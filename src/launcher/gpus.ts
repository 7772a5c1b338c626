/** Which GPU each process sees. */
import type { EngineName, EngineOptions } from "../engine/engine.js";
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
 * `--gpus` sets CUDA_VISIBLE_DEVICES, which reaches CUDA alone.
 * @throws {TroupeError} CONFIG when the run computes with something else
 */
export function requireGpuEngine(engine: EngineName, provider: EngineOptions["provider"]): void {
  if (engine === "tensorflow" || (engine === "onnx" && provider === "cuda")) return;
  const what =
    provider === "webgpu"
      ? "engine.provider webgpu leaves the choice of the GPU to its driver"
      : `the ${engine} engine computes on the CPU here (troupe doctor says why)`;
  throw configError(
    `--gpus would do nothing: ${what}; leave it out, or choose engine.name tensorflow or engine.provider cuda`,
  );
}

/** When processes share a GPU, and so its memory and time; null when each has its own. */
export function gpuNote(
  workers: Readonly<Record<WorkerRole, number>>,
  gpus: readonly number[],
): string | null {
  const count = workers.rollout + workers.learner;
  if (gpus.length === 0 || count <= gpus.length) return null;
  return `${count} workers (${workers.rollout} rollouts, ${workers.learner} learners) share ${gpus.length} GPUs of --gpus, their memory and time`;
}

/**
 * One GPU per process, in turn: rollout workers from the front of the list, learners from its end, so that both roles
 * spread over the devices and share one only when there are more processes than GPUs.
 */
export function gpuOf(role: WorkerRole, index: number, gpus: readonly number[]): number {
  const position = index % gpus.length;
  return role === "rollout" ? gpus[position] : gpus[gpus.length - 1 - position];
}
