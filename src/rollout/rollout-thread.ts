/**
 * The compute thread of a rollout process: one `RolloutCompute` in module state, driven by the exported functions.
 * Results move to the caller without a copy.
 */
import { move, transferableSymbol, valueSymbol } from "piscina";
import type { Rollout, ScoredRollout } from "../rl/types.js";
import { configError } from "../shared/errors.js";
import { threadFunction } from "../worker/thread-error.js";
import {
  RolloutCompute,
  type LoadRequest,
  type PerformedTask,
  type RolloutSettings,
  type RolloutTask,
} from "./rollout-compute.js";

let compute: RolloutCompute | undefined;

/**
 * Opens the engine and makes room for the models; a second call replaces everything.
 * @returns which engine computes, for the log
 */
export const configure = threadFunction(async (settings: RolloutSettings): Promise<string> => {
  await compute?.close();
  compute = undefined;
  compute = await RolloutCompute.open(settings);
  return compute.description;
});

/** Replaces one model's parameters, or adapters, by those of a safetensors file. */
export const loadModel = threadFunction(async (request: LoadRequest): Promise<void> =>
  configured().loadModel(request),
);

/** Reads the model under one model's adapters. */
export const loadBase = threadFunction(async (request: LoadRequest): Promise<void> =>
  configured().loadBase(request),
);

/** Generates one answer per prompt and, when `needs.score`, scores it. */
export const perform = threadFunction(async (task: RolloutTask): Promise<PerformedTask> => {
  const performed = await configured().perform(task);
  return moved(performed, performed.rollouts);
});

/** Answers only; needs no model but the actor. */
export const generateOnly = threadFunction(async (task: Omit<RolloutTask, "needs">): Promise<Rollout[]> => {
  const rollouts = await configured().generateOnly(task);
  return moved(rollouts, rollouts);
});

function configured(): RolloutCompute {
  if (compute === undefined) throw configError("the rollout thread was not configured yet");
  return compute;
}

/** Marks a result so that piscina transfers the rollouts' buffers instead of copying them. */
function moved<T extends object>(value: T, rollouts: readonly (Rollout | ScoredRollout)[]): T {
  const buffers = new Set<ArrayBufferLike>();
  for (const rollout of rollouts) {
    for (const field of Object.values(rollout)) if (ArrayBuffer.isView(field)) buffers.add(field.buffer);
  }
  const transferable = { [transferableSymbol]: [...buffers], [valueSymbol]: value };
  return move(transferable as never) as unknown as T;
}
