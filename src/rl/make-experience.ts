/** Scored rollouts to training data: mask, rewards, advantages, whitening. */
import { numericError, shapeError } from "../shared/errors.js";
import { atOnce, type Steps } from "../shared/steps.js";
import { actionMaskOf, type EosGap } from "./action-mask.js";
import { computeGae, type GaeOptions } from "./gae.js";
import { computeRewards, sequenceReward, type ScoreOptions } from "./rewards.js";
import type { Experience, ScoredRollout } from "./types.js";
import { whitening } from "./whiten.js";

export interface ExperienceOptions extends ScoreOptions, GaeOptions {
  /** β of the KL penalty in the rewards. */
  readonly klCoef: number;
  /** Whiten advantages over all counted tokens of the rollouts given together. */
  readonly whitenAdvantages: boolean;
  /** DeepSpeed-Chat's masked EOS; null = every token counts. */
  readonly eosGap: EosGap | null;
}

/**
 * Turns rollouts into experiences, in the same order.
 *
 *   1  actionMask   actionMaskOf(responseIds)
 *   2  rewards      −klCoef·k1 per token, plus the shaped score on the last token; k1 = log π_prox − log π_ref
 *   3  advantages, returns = advantages + values     (GAE)
 *   4  advantages   whitened over the batch; returns are not
 *
 * π_prox is what sampled, unless the rollout says otherwise. For stale rollouts it matters: the penalty is what pulls
 * the policy back to the reference, and one that is computed from the sampling policy pulls back from where the policy
 * was some updates ago; at a large step size that is a force with a delay, which overshoots (docs/ppo-details.md).
 *
 * Pass a whole collection at once: whitening a part of it would use that part's moments.
 *
 * @throws {TroupeError} SHAPE for an empty response or differing lengths, NUMERIC for NaN or infinity; both name the
 *   experience. DATA when whitening finds no counted token.
 */
export function makeExperience(rollouts: readonly ScoredRollout[], options: ExperienceOptions): Experience[] {
  return atOnce(makingExperience(rollouts, options));
}

/** The same, with a pause after every rollout for whoever must do something else meanwhile. */
export function* makingExperience(
  rollouts: readonly ScoredRollout[],
  options: ExperienceOptions,
): Steps<Experience[]> {
  const experiences: Experience[] = [];
  for (const rollout of rollouts) {
    yield;
    checkRollout(rollout);
    const reward = sequenceReward(rollout.score, rollout.finishReason === "length", options);
    const { proximalLogprobs = rollout.logprobs } = rollout;
    const rewards = computeRewards(proximalLogprobs, rollout.refLogprobs, reward, options.klCoef);
    const { advantages, returns } = computeGae(rewards, rollout.values, options);
    const actionMask = actionMaskOf(rollout.responseIds, options.eosGap);
    experiences.push({ ...rollout, rewards, advantages, returns, actionMask });
  }
  if (!options.whitenAdvantages || experiences.length === 0) return experiences;
  const whitened = yield* whitening(
    experiences.map((experience) => experience.advantages),
    experiences.map((experience) => experience.actionMask),
  );
  for (const [b, experience] of experiences.entries()) {
    yield;
    experiences[b] = { ...experience, advantages: whitened[b] };
  }
  return experiences;
}

function checkRollout(rollout: ScoredRollout): void {
  const { experienceId, responseIds, score } = rollout;
  const tokens = responseIds.length;
  if (tokens === 0)
    throw shapeError(`experience ${experienceId}: the response has no tokens; expected at least 1`);
  if (!Number.isFinite(score)) throw numericError(`experience ${experienceId}: score is ${score}`);
  for (const name of ["logprobs", "proximalLogprobs", "refLogprobs", "values"] as const) {
    const row = rollout[name];
    if (row === undefined) continue;
    if (row.length !== tokens) {
      throw shapeError(
        `experience ${experienceId}: ${name} has ${row.length} entries for ${tokens} response tokens`,
      );
    }
    const bad = row.findIndex((x) => !Number.isFinite(x));
    if (bad >= 0) throw numericError(`experience ${experienceId}: ${name}[${bad}] is ${row[bad]}`);
  }
}
