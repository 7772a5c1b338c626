/** Entry of the learner's compute thread: `LearnerCompute` as functions over one instance. */
import { isWorkerThread, move, transferableSymbol, valueSymbol } from "piscina";
import { collectGarbage } from "../shared/collect-garbage.js";
import { TroupeError } from "../shared/errors.js";
import { movableBuffers } from "../worker/compute-pool.js";
import { threadFunction } from "../worker/thread-error.js";
import {
  LearnerCompute,
  type ApplyRequest,
  type EvaluateRequest,
  type ExportRequest,
  type ExportStateRequest,
  type LearnerSettings,
  type ShardsRequest,
} from "./learner-compute.js";
import type { InnerStepRequest, OuterStepRequest } from "./parameter-round.js";

let current: LearnerCompute | undefined;

function compute(): LearnerCompute {
  if (current === undefined) {
    throw new TroupeError("INTERNAL", "the learner thread was used before it was configured");
  }
  return current;
}

async function closeCurrent(): Promise<void> {
  const closing = current?.close();
  current = undefined;
  await closing;
}

/** Opens the models of a stage; those of an earlier one are let go first, so that both are never in memory. */
export const configure = threadFunction(async (settings: LearnerSettings) => {
  await closeCurrent();
  collectGarbage();
  current = await LearnerCompute.open(settings);
  return { parameterCount: current.parameterCount, engine: current.engineDescription };
});

export const computeShards = threadFunction(async (request: ShardsRequest) => {
  const result = await compute().computeShards(request);
  return isWorkerThread
    ? moved(
        result,
        result.nodes.map(({ gradients }) => gradients),
      )
    : result;
});

export const measureGradients = threadFunction(async (gradients: Float32Array) => {
  const measured = await compute().measureGradients(gradients);
  return isWorkerThread ? moved(measured, [measured.gradients]) : measured;
});
export const applyGradients = threadFunction((request: ApplyRequest) => compute().applyGradients(request));
export const innerStep = threadFunction((request: InnerStepRequest) => compute().round.innerStep(request));
export const contribution = threadFunction(async (weight: number) => {
  const result = await compute().round.contribution(weight);
  return isWorkerThread ? moved(result, [result.values]) : result;
});
export const outerStep = threadFunction((request: OuterStepRequest) => compute().outerStep(request));
export const rollBack = threadFunction((_argument: undefined) => compute().round.rollBack());
export const evaluate = threadFunction((request: EvaluateRequest) => compute().evaluate(request));
export const exportModel = threadFunction((request: ExportRequest) => compute().exportModel(request));
export const exportAdapter = threadFunction((request: Pick<ExportRequest, "role" | "path">) =>
  compute().exportAdapter(request),
);
export const exportState = threadFunction((request: ExportStateRequest) => compute().exportState(request));
export const loadState = threadFunction((path: string) => compute().loadState(path));
export const stateSha256 = threadFunction((_argument: undefined) => compute().stateSha256());

/**
 * The vectors move to the caller's thread instead of being copied; the caller gets a plain `Result`. Shared memory needs
 * no moving: the caller sees it, and this thread leaves it alone until it comes back.
 */
function moved<Result>(result: Result, vectors: readonly Float32Array[]): Result {
  const movable = { [transferableSymbol]: movableBuffers(vectors), [valueSymbol]: result };
  return move(movable as unknown as Parameters<typeof move>[0]) as unknown as Result;
}
