/** Entry of the learner's compute thread: `LearnerCompute` as functions over one instance. */
import { isWorkerThread, move, transferableSymbol, valueSymbol } from "piscina";
import { TroupeError } from "../shared/errors.js";
import { threadFunction } from "../worker/thread-error.js";
import {
  LearnerCompute,
  type ApplyRequest,
  type EvaluateRequest,
  type ExportRequest,
  type LearnerSettings,
  type ShardsRequest,
  type ShardsResult,
} from "./learner-compute.js";

let current: LearnerCompute | undefined;

function compute(): LearnerCompute {
  if (current === undefined) {
    throw new TroupeError("INTERNAL", "the learner thread was used before it was configured");
  }
  return current;
}

/** Opens the models of a stage; those of an earlier one are let go first, so that both are never in memory. */
export const configure = threadFunction(async (settings: LearnerSettings) => {
  const previous = current;
  current = undefined;
  await previous?.close();
  current = await LearnerCompute.open(settings);
  return { parameterCount: current.parameterCount, engine: current.engineDescription };
});

export const computeShards = threadFunction(async (request: ShardsRequest) => {
  const result = await compute().computeShards(request);
  return isWorkerThread ? withoutCopy(result) : result;
});

export const applyGradients = threadFunction((request: ApplyRequest) => compute().applyGradients(request));
export const evaluate = threadFunction((request: EvaluateRequest) => compute().evaluate(request));
export const exportModel = threadFunction((request: ExportRequest) => compute().exportModel(request));
export const exportAdapter = threadFunction((request: Pick<ExportRequest, "role" | "path">) =>
  compute().exportAdapter(request),
);
export const exportState = threadFunction((path: string) => compute().exportState(path));
export const loadState = threadFunction((path: string) => compute().loadState(path));
export const stateSha256 = threadFunction((_argument: undefined) => compute().stateSha256());

/** The gradients move to the caller's thread; the caller gets a plain `ShardsResult`. */
function withoutCopy(result: ShardsResult): ShardsResult {
  const movable = {
    [transferableSymbol]: result.nodes.map(({ gradients }) => gradients.buffer),
    [valueSymbol]: result,
  };
  return move(movable as unknown as Parameters<typeof move>[0]) as unknown as ShardsResult;
}
