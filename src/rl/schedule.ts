/**
 * Learning rate of each optimizer step s = 0 … totalSteps − 1, as Hugging Face's schedulers give it:
 *
 *   s < warmup   peak · s / warmup                            (so with warm-up the first step has rate 0)
 *   then, with p = (s − warmup) / (total − warmup):
 *   cosine       peak · ½(1 + cos πp)      linear  peak · (1 − p)      constant  peak
 *
 * The rate reaches 0 just after the last step. Progress, not wall time: it does not depend on how many workers run.
 *
 * @see transformers/optimization.py `get_cosine_schedule_with_warmup`, which DeepSpeed-Chat uses
 */
import { configError } from "../shared/errors.js";

export interface ScheduleOptions {
  /** Peak rate. */
  readonly learningRate: number;
  readonly schedule: "cosine" | "linear" | "constant";
  readonly warmupSteps: number;
}

/**
 * @param step       optimizer steps already taken, from 0
 * @param totalSteps of the stage; steps past it keep the final rate
 * @throws {TroupeError} CONFIG for a negative or fractional step
 */
export function learningRateAt(options: ScheduleOptions, step: number, totalSteps: number): number {
  const { learningRate, schedule, warmupSteps } = options;
  if (!Number.isInteger(step) || step < 0)
    throw configError(`learningRateAt: step must be an integer from 0, got ${step}`);
  if (step < warmupSteps) return (learningRate * step) / warmupSteps;
  const progress = Math.min(1, (step - warmupSteps) / Math.max(1, totalSteps - warmupSteps));
  switch (schedule) {
    case "cosine":
      return learningRate * 0.5 * (1 + Math.cos(Math.PI * progress));
    case "linear":
      return learningRate * (1 - progress);
    case "constant":
      return learningRate;
  }
}
