/** Per-token rewards: a KL penalty on every token and the sequence's score on the last one. */
import { configError, shapeError } from "../shared/errors.js";
import { tokenKl } from "./kl.js";

export interface ScoreOptions {
  /** Subtracted first. @default none: 0 */
  readonly scoreShift: number;
  /** Divided by, after the shift; above 0. 1 = off */
  readonly scoreScale: number;
  /** The shifted and scaled score is clipped to ± this; above 0. DeepSpeed-Chat 5. */
  readonly clipRewardValue: number;
  /** Subtracted after clipping when the answer was cut, so that clipping cannot hide it; 0 = off. */
  readonly missingEosPenalty: number;
}

/**
 * What the reward model's raw score is worth to the policy.
 *
 *   clamp((score − shift) / scale, ±clipRewardValue) − missingEosPenalty · [truncated]
 */
export function sequenceReward(score: number, isTruncated: boolean, options: ScoreOptions): number {
  const { scoreShift, scoreScale, clipRewardValue, missingEosPenalty } = options;
  if (!(scoreScale > 0)) throw configError(`scoreScale must be above 0, got ${scoreScale}`);
  const normalized = (score - scoreShift) / scoreScale;
  const clipped = Math.min(Math.max(normalized, -clipRewardValue), clipRewardValue);
  return isTruncated ? clipped - missingEosPenalty : clipped;
}

/**
 * Rewards of one response.
 *
 *   r_i = −klCoef · (log π(token_i) − log π_ref(token_i))  +  [i = R − 1] · sequenceReward
 *
 * The penalty is the k1 estimate of each token. Under the EOS gap (see `actionMaskOf`) the last token is the masked
 * EOS and takes the score all the same.
 *
 * @param logprobs    `[R]`, R ≥ 1; of the policy at the start of the update
 * @param refLogprobs `[R]`
 * @param reward      of the whole sequence, from `sequenceReward`
 * @param klCoef      β ≥ 0
 * @returns `[R]`
 * @throws {TroupeError} SHAPE for an empty response (there is no token to reward) or differing lengths
 * @see DeepSpeedExamples 83757d9c, dschat/rlhf/ppo_trainer.py `compute_rewards`
 */
export function computeRewards(
  logprobs: Float32Array,
  refLogprobs: Float32Array,
  reward: number,
  klCoef: number,
): Float32Array {
  const tokens = logprobs.length;
  if (tokens === 0) throw shapeError("computeRewards: the response has no tokens; expected at least 1");
  if (refLogprobs.length !== tokens) {
    throw shapeError(
      `computeRewards: logprobs [${tokens}] and refLogprobs [${refLogprobs.length}] differ in length`,
    );
  }
  const rewards = new Float32Array(tokens);
  for (let i = 0; i < tokens; i++) {
    const penalty = -klCoef * tokenKl("k1", logprobs[i], refLogprobs[i]);
    rewards[i] = i === tokens - 1 ? penalty + reward : penalty;
  }
  return rewards;
}
