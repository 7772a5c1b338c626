/** Stage 1, supervised fine-tuning: −mean log π(token) over the answers' tokens (or all tokens, as DeepSpeed-Chat). */
import type { ModelSource } from "../coordinator/model-folders.js";
import type { SftRow } from "../data/types.js";
import { sftDenominator } from "../rl/loss-denominator.js";
import type { RunContext } from "./run-context.js";
import { runSupervisedStage, type SupervisedResult } from "./supervised-loop.js";

export function runSftStage(run: RunContext, model: ModelSource): Promise<SupervisedResult> {
  const { sft } = run.config;
  return runSupervisedStage<SftRow>(run, {
    stage: "sft",
    rows: run.data.sft.train,
    heldOut: run.data.sft.eval,
    epochs: sft.epochs,
    batchSize: sft.batchSize,
    optimizer: sft.optimizer,
    model,
    head: "lm",
    lengthOf: (row) => row.ids.length,
    wrap: (rows) => ({ kind: "sft", rows }),
    denominatorOf: sftDenominator,
    stepMetrics: (sums) => ({ loss: sums.loss ?? NaN }),
    evalMetrics: ({ nll, tokens }) => ({ eval_loss: total(nll) / total(tokens) }),
  });
}

const total = (values: Float64Array): number => values.reduce((sum, value) => sum + value, 0);
