/** Numbers a person watches, computed from experiences. All in float64. */
import { dataError, shapeError } from "../shared/errors.js";
import { sequenceKl } from "./kl.js";
import type { Experience } from "./types.js";

export interface Summary {
  readonly mean: number;
  /** Population deviation. */
  readonly deviation: number;
  readonly min: number;
  readonly max: number;
}

/** @throws {TroupeError} DATA for no values: there is no mean of nothing */
export function summarize(values: ArrayLike<number>): Summary {
  const count = values.length;
  if (count === 0) throw dataError("summarize: no values");
  let sum = 0;
  let min = Infinity;
  let max = -Infinity;
  for (let i = 0; i < count; i++) {
    sum += values[i];
    min = Math.min(min, values[i]);
    max = Math.max(max, values[i]);
  }
  const mean = sum / count;
  let squares = 0;
  for (let i = 0; i < count; i++) squares += (values[i] - mean) ** 2;
  return { mean, deviation: Math.sqrt(squares / count), min, max };
}

/**
 * How much of the returns' variance the critic explains: 1 − Var(returns − values) / Var(returns).
 *
 * 1 = perfect, 0 = no better than the mean, negative = worse; NaN when the returns do not vary.
 * @param returns `[N]` counted tokens   @param values `[N]`
 */
export function explainedVariance(returns: ArrayLike<number>, values: ArrayLike<number>): number {
  if (returns.length !== values.length) {
    throw shapeError(`explainedVariance: ${returns.length} returns and ${values.length} values`);
  }
  const total = summarize(returns).deviation ** 2;
  const residuals = new Float64Array(returns.length);
  for (let i = 0; i < residuals.length; i++) residuals[i] = returns[i] - values[i];
  const residual = summarize(residuals).deviation ** 2;
  return total === 0 ? NaN : 1 - residual / total;
}

/** Means over the sequences of a collection, unless said otherwise. Token sums leave out masked tokens only in `kl`. */
export interface ExperienceStats {
  readonly experiences: number;
  /** Raw score of the reward model. */
  readonly score: Summary;
  /** k1 KL to the reference per sequence, nats: what the KL controller steers by. */
  readonly kl: number;
  /** k3 KL to the reference per sequence, nats. */
  readonly klK3: number;
  /** Sum of the per-token rewards: KL penalty and shaped score. */
  readonly rlhfReward: number;
  /** −log π_old per token, mean over all counted tokens: the entropy, estimated from samples. */
  readonly entropy: number;
  readonly responseTokens: Summary;
  /** Share of sequences that the model ended itself. */
  readonly eosFraction: number;
  /** Over all counted tokens. */
  readonly explainedVariance: number;
}

/** @throws {TroupeError} DATA for an empty collection or one without a counted token */
export function experienceStats(experiences: readonly Experience[]): ExperienceStats {
  const meanOf = (of: (experience: Experience) => number): number => summarize(experiences.map(of)).mean;
  const klOf = (estimator: "k1" | "k3") => (e: Experience) =>
    sequenceKl(estimator, e.logprobs, e.refLogprobs, e.actionMask);
  let tokens = 0;
  for (const { actionMask } of experiences)
    for (let i = 0; i < actionMask.length; i++) if (actionMask[i] === 1) tokens += 1;
  const counted = (of: (experience: Experience) => Float32Array): Float64Array => {
    const values = new Float64Array(tokens);
    let at = 0;
    for (const experience of experiences) {
      const column = of(experience);
      const { actionMask } = experience;
      for (let i = 0; i < column.length; i++) if (actionMask[i] === 1) values[at++] = column[i];
    }
    return values;
  };
  return {
    experiences: experiences.length,
    score: summarize(experiences.map((e) => e.score)),
    kl: meanOf(klOf("k1")),
    klK3: meanOf(klOf("k3")),
    rlhfReward: meanOf((e) => e.rewards.reduce((sum, reward) => sum + reward, 0)),
    entropy: -summarize(counted((e) => e.logprobs)).mean,
    responseTokens: summarize(experiences.map((e) => e.responseIds.length)),
    eosFraction: meanOf((e) => (e.finishReason === "eos" ? 1 : 0)),
    explainedVariance: explainedVariance(
      counted((e) => e.returns),
      counted((e) => e.values),
    ),
  };
}
