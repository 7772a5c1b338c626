/**
 * The PPO update: `ppoEpochs` passes over the iteration's minibatches, one optimizer step of actor and critic each; with
 * averaged parameters, one optimizer step of every learner, and a step of the run is a round of them.
 * The first pass is in order, later ones shuffle the minibatches (as DeepSpeed-Chat). What a learner does within a
 * step is in src/learner/optimizer-step.ts; the losses are src/rl/policy-loss.ts and src/rl/value-loss.ts.
 */
import { ppoDenominator } from "../rl/loss-denominator.js";
import { shuffled } from "../rl/shuffle.js";
import type { Experience } from "../rl/types.js";
import type { StepRequest, StepResult } from "./optimizer-steps.js";
import { intoRounds, roundRequest } from "./round-manifest.js";

export interface UpdateStats {
  /** Metric sums over the measured steps, and what they are sums over. */
  readonly sums: Readonly<Record<string, number>>;
  /** Counted tokens summed over the measured steps. */
  readonly tokens: number;
  /** Minibatches trained now: not those that were answered from the journal after a restart. */
  readonly measuredSteps: number;
  /** Steps of the run: minibatches, or rounds of them. */
  readonly optimizerSteps: number;
  readonly skippedSteps: number;
  readonly allReduceMs: number;
  readonly elapsedMs: number;
}

export interface PpoUpdateOptions {
  readonly iteration: number;
  readonly ppoEpochs: number;
  readonly seed: number;
  /** Steps of the run finished before this update. */
  readonly stepsBefore: number;
  /** Minibatches of a round at most, and trained before this update; null when gradients are summed. */
  readonly rounds: { readonly every: number; readonly minibatchesBefore: number } | null;
  readonly klCoef: number;
  readonly shardCountOf: (rows: number) => number;
}

export async function ppoUpdate(
  minibatches: readonly (readonly Experience[])[],
  optimizerStep: (request: StepRequest) => Promise<StepResult>,
  { iteration, ppoEpochs, seed, stepsBefore, rounds, klCoef, shardCountOf }: PpoUpdateOptions,
): Promise<UpdateStats> {
  const startedMs = performance.now();
  const sums: Record<string, number> = {};
  let step = stepsBefore;
  let tokens = 0;
  let measuredSteps = 0;
  let skippedSteps = 0;
  let allReduceMs = 0;
  const updates = Array.from({ length: ppoEpochs }, (_, epoch) => {
    const order = epoch === 0 ? minibatches : shuffled(minibatches, { seed, iteration, epoch });
    return order.map((minibatch) => ({
      tokens: ppoDenominator(minibatch),
      experienceIds: minibatch.map((experience) => experience.experienceId),
      input: { iteration, klCoef },
      shardCount: shardCountOf(minibatch.length),
      isFinalUse: epoch === ppoEpochs - 1,
    }));
  }).flat();
  let minibatchesBefore = rounds?.minibatchesBefore ?? 0;
  for (const group of intoRounds(updates, rounds?.every ?? 1)) {
    step += 1;
    const [{ tokens: _, ...single }] = group;
    const result = await optimizerStep(
      rounds === null ? { step, ...single } : roundRequest(group, step, minibatchesBefore + 1),
    );
    minibatchesBefore += group.length;
    if (result.outcome === "skipped") skippedSteps += 1;
    allReduceMs += result.allReduceMs;
    if (Object.keys(result.sums).length === 0) continue;
    measuredSteps += result.minibatches;
    const trainedShare = result.minibatches / group.length;
    tokens += trainedShare * group.reduce((sum, update) => sum + update.tokens, 0);
    for (const [name, value] of Object.entries(result.sums)) sums[name] = (sums[name] ?? 0) + value;
  }
  return {
    sums,
    tokens,
    measuredSteps,
    optimizerSteps: step - stepsBefore,
    skippedSteps,
    allReduceMs,
    elapsedMs: performance.now() - startedMs,
  };
}
