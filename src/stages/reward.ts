/** Stage 2, the reward model: −log σ(score(chosen) − score(rejected)), Bradley and Terry's likelihood of the choices. */
import type { ModelSource } from "../coordinator/model-folders.js";
import type { PreferencePair } from "../data/types.js";
import { rewardDenominator } from "../rl/loss-denominator.js";
import type { RunContext } from "./run-context.js";
import { runSupervisedStage, type SupervisedResult } from "./supervised-loop.js";

export function runRewardStage(run: RunContext, model: ModelSource): Promise<SupervisedResult> {
  const { reward } = run.config;
  return runSupervisedStage<PreferencePair>(run, {
    stage: "reward",
    rows: run.data.reward.train,
    heldOut: run.data.reward.eval,
    epochs: reward.epochs,
    batchSize: reward.batchSize,
    optimizer: reward.optimizer,
    model,
    head: "scalar",
    lengthOf: (pair) => Math.max(pair.chosen.length, pair.rejected.length),
    wrap: (rows) => ({ kind: "reward", rows }),
    denominatorOf: rewardDenominator,
    stepMetrics: (sums, pairs) => ({ loss: sums.loss ?? NaN, accuracy: (sums.correctSum ?? NaN) / pairs }),
    evalMetrics: ({ chosen_score: chosenScore, rejected_score: rejectedScore }) => {
      let correct = 0;
      let loss = 0;
      for (let i = 0; i < chosenScore.length; i++) {
        const margin = chosenScore[i] - rejectedScore[i];
        correct += margin > 0 ? 1 : 0;
        loss += Math.log1p(Math.exp(-Math.abs(margin))) + Math.max(-margin, 0);
      }
      return { eval_loss: loss / chosenScore.length, eval_accuracy: correct / chosenScore.length };
    },
  });
}
