/**
 * The PPO update: `ppoEpochs` passes over the iteration's minibatches, one optimizer step of actor and critic each.
 * The first pass is in order, later ones shuffle the minibatches (as DeepSpeed-Chat). What a learner does within a
 * step is in src/learner/optimizer-step.ts; the losses are src/rl/policy-loss.ts and src/rl/value-loss.ts.
 */
import { shuffled } from "../rl/shuffle.js";
import type { Experience } from "../rl/types.js";
import type { StepRequest, StepResult } from "./learner-group.js";

export interface UpdateStats {
  /** Metric sums over the measured steps, and what they are sums over. */
  readonly sums: Readonly<Record<string, number>>;
  /** Counted tokens summed over the measured steps. */
  readonly tokens: number;
  /** Steps done now: not those that were answered from the journal after a restart. */
  readonly measuredSteps: number;
  readonly optimizerSteps: number;
  readonly skippedSteps: number;
  readonly allReduceMs: number;
  readonly elapsedMs: number;
}

export interface PpoUpdateOptions {
  readonly iteration: number;
  readonly ppoEpochs: number;
  readonly seed: number;
  /** Optimizer steps finished before this update. */
  readonly stepsBefore: number;
  readonly klCoef: number;
  readonly shardCountOf: (rows: number) => number;
}

/** Tokens that count in the losses. */
export function countedTokens(rows: readonly Pick<Experience, "actionMask">[]): number {
  return rows.reduce((total, { actionMask }) => total + actionMask.reduce((sum, bit) => sum + bit, 0), 0);
}

export async function ppoUpdate(
  minibatches: readonly (readonly Experience[])[],
  optimizerStep: (request: StepRequest) => Promise<StepResult>,
  { iteration, ppoEpochs, seed, stepsBefore, klCoef, shardCountOf }: PpoUpdateOptions,
): Promise<UpdateStats> {
  const startedMs = performance.now();
  const sums: Record<string, number> = {};
  let step = stepsBefore;
  let tokens = 0;
  let measuredSteps = 0;
  let skippedSteps = 0;
  let allReduceMs = 0;
  for (let epoch = 0; epoch < ppoEpochs; epoch++) {
    const order = epoch === 0 ? minibatches : shuffled(minibatches, { seed, iteration, epoch });
    for (const minibatch of order) {
      const result = await optimizerStep({
        step: ++step,
        experienceIds: minibatch.map((experience) => experience.experienceId),
        input: { iteration, klCoef },
        shardCount: shardCountOf(minibatch.length),
        isFinalUse: epoch === ppoEpochs - 1,
      });
      if (result.outcome === "skipped") skippedSteps += 1;
      allReduceMs += result.allReduceMs;
      if (Object.keys(result.sums).length === 0) continue;
      measuredSteps += 1;
      tokens += countedTokens(minibatch);
      for (const [name, value] of Object.entries(result.sums)) sums[name] = (sums[name] ?? 0) + value;
    }
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
