/** Numbers a person watches, computed from experiences. All in float64. */
import { dataError, shapeError } from "../shared/errors.js";
import { atOnce, type Steps } from "../shared/steps.js";
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
  return atOnce(measuringExperience(experiences));
}

/** The same, with a pause after every experience. */
export function* measuringExperience(experiences: readonly Experience[]): Steps<ExperienceStats> {
  const count = experiences.length;
  const k1 = new Float64Array(count);
  const k3 = new Float64Array(count);
  const rewards = new Float64Array(count);
  let tokens = 0;
  for (const [b, { logprobs, refLogprobs, actionMask, rewards: row }] of experiences.entries()) {
    k1[b] = sequenceKl("k1", logprobs, refLogprobs, actionMask);
    k3[b] = sequenceKl("k3", logprobs, refLogprobs, actionMask);
    for (let i = 0; i < row.length; i++) rewards[b] += row[i];
    for (let i = 0; i < actionMask.length; i++) if (actionMask[i] === 1) tokens += 1;
    yield;
  }
  const logprobs = new Float64Array(tokens);
  const returns = new Float64Array(tokens);
  const values = new Float64Array(tokens);
  let at = 0;
  for (const experience of experiences) {
    const { actionMask } = experience;
    for (let i = 0; i < actionMask.length; i++) {
      if (actionMask[i] !== 1) continue;
      logprobs[at] = experience.logprobs[i];
      returns[at] = experience.returns[i];
      values[at] = experience.values[i];
      at += 1;
    }
    yield;
  }
  const score = summarize(experiences.map((e) => e.score));
  const kl = summarize(k1).mean;
  const klK3 = summarize(k3).mean;
  const rlhfReward = summarize(rewards).mean;
  yield;
  const entropy = -summarize(logprobs).mean;
  yield;
  return {
    experiences: count,
    score,
    kl,
    klK3,
    rlhfReward,
    entropy,
    responseTokens: summarize(experiences.map((e) => e.responseIds.length)),
    eosFraction: summarize(experiences.map((e) => (e.finishReason === "eos" ? 1 : 0))).mean,
    explainedVariance: explainedVariance(returns, values),
  };
}
