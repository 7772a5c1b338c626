/** Entry of the learner's compute thread: `LearnerCompute` as functions over one instance. */
import { TroupeError } from "../shared/errors.js";
import {
  LearnerCompute,
  type ApplyRequest,
  type LearnerSettings,
  type ShardsRequest,
  type ShardsResult,
} from "./learner-compute.js";
import type { ShardRows } from "./shards.js";

let current: LearnerCompute | undefined;

function compute(): LearnerCompute {
  if (current === undefined)
    throw new TroupeError("INTERNAL", "the learner thread was used before it was configured");
  return current;
}

/** Opens the models of a stage; those of an earlier one are let go first, so that both are never in memory. */
export async function configure(
  settings: LearnerSettings,
): Promise<{ parameterCount: number; engine: string }> {
  const previous = current;
  current = undefined;
  await previous?.close();
  current = await LearnerCompute.open(settings);
  return { parameterCount: current.parameterCount, engine: current.engineDescription };
}

export async function computeShards(request: ShardsRequest): Promise<ShardsResult> {
  return compute().computeShards(request);
}

export async function applyGradients(
  request: ApplyRequest,
): Promise<{ gradNorms: Record<string, number>; isFinite: true }> {
  return compute().applyGradients(request);
}

export async function evaluate(request: { readonly rows: ShardRows }): Promise<Record<string, Float64Array>> {
  return compute().evaluate(request);
}

export async function exportModel(request: {
  readonly role: string;
  readonly path: string;
  readonly ema?: boolean;
}): Promise<void> {
  return compute().exportModel(request);
}

export async function exportState(path: string): Promise<void> {
  return compute().exportState(path);
}

export async function loadState(path: string): Promise<{ optimizerStep: number }> {
  return compute().loadState(path);
}

export async function stateSha256(): Promise<string> {
  return compute().stateSha256();
}
