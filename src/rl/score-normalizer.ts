/**
 * Brings a reward model's scores to mean 0 and deviation 1 on held-out answers, once, before PPO starts. Fixed for the
 * stage: a normaliser that moved with the policy would hide its progress.
 */
import { dataError, numericError } from "../shared/errors.js";

/** Applied by `sequenceReward`. */
export interface ScoreNormalizer {
  readonly scoreShift: number;
  readonly scoreScale: number;
}

export const IDENTITY_SCORE_NORMALIZER: ScoreNormalizer = { scoreShift: 0, scoreScale: 1 };

/** Below this spread the reward model tells answers apart by rounding noise; scaling would blow it up. */
const MIN_DEVIATION = 1e-6;

/**
 * @param scores `[N]`, N ≥ 2, raw scores of held-out answers
 * @returns shift = mean, scale = population deviation
 * @throws {TroupeError} DATA with fewer than 2 scores or when all are equal; NUMERIC when one is not finite
 */
export function fitScoreNormalizer(scores: ArrayLike<number>): ScoreNormalizer {
  const count = scores.length;
  if (count < 2) throw dataError(`score normalisation needs at least 2 held-out scores, got ${count}`);
  let sum = 0;
  for (let i = 0; i < count; i++) {
    if (!Number.isFinite(scores[i]))
      throw numericError(`held-out score ${i} is ${scores[i]}; expected a finite number`);
    sum += scores[i];
  }
  const mean = sum / count;
  let squares = 0;
  for (let i = 0; i < count; i++) squares += (scores[i] - mean) ** 2;
  const deviation = Math.sqrt(squares / count);
  if (deviation < MIN_DEVIATION) {
    throw dataError(
      `all ${count} held-out scores are ${mean}: the reward model does not tell answers apart. ` +
        "Train it longer, or set ppo.normalizeScores: false",
    );
  }
  return { scoreShift: mean, scoreScale: deviation };
}
