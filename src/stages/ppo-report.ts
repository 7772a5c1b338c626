/** What an iteration says about itself (TRL's metric names), and the checks before the first step that save a wrong run. */
import type { Config } from "../config/schema.js";
import type { UpdateStats } from "../coordinator/ppo-update.js";
import type { ExperienceStats } from "../rl/stats.js";
import type { ScoredRollout } from "../rl/types.js";
import { numericError } from "../shared/errors.js";
import type { RunContext } from "./run-context.js";

/** Largest |Δ log-probability| between two computations of the same quantity: float32 rounding, not a wrong model. */
const LOGPROB_TOLERANCE = 1e-4;
/** Largest mean |Δ log-probability| that an int8 reference may start with: its rounding, several times over. */
const INT8_OFFSET_TOLERANCE = 0.05;
const SAMPLES_EVERY_ITERATIONS = 10;

type FrozenWeights = Config["engine"]["frozenWeights"];

export const checkPreflight = {
  /**
   * Before anything is trained the actor is the reference: KL(actor, ref) must be 0. An int8 reference is off by its
   * rounding; then the mean over all tokens is checked.
   * @returns that mean of |log π_actor − log π_ref|, the preflight offset
   * @throws {TroupeError} NUMERIC naming the experience
   */
  rollouts(rollouts: readonly ScoredRollout[], frozenWeights: FrozenWeights = "f32"): number {
    const offset = meanOffset(rollouts);
    if (frozenWeights === "int8") {
      if (!(offset <= INT8_OFFSET_TOLERANCE)) {
        throw numericError(
          `step-0 preflight: actor and int8 reference differ by ${offset.toExponential(2)} in log-probability on average; expected at most ${INT8_OFFSET_TOLERANCE}. Either they are not the same model, or this one does not bear engine.frozenWeights: int8; set it to f32`,
        );
      }
      return offset;
    }
    for (const { experienceId, logprobs, refLogprobs } of rollouts) {
      for (let i = 0; i < logprobs.length; i++) {
        const difference = Math.abs(logprobs[i] - refLogprobs[i]);
        if (!(difference <= LOGPROB_TOLERANCE)) {
          throw numericError(
            `step-0 preflight: actor and reference differ by ${difference.toExponential(2)} in log-probability at token ${i} of experience ${experienceId}; expected at most ${LOGPROB_TOLERANCE}. They must be the same model, temperature and kernels at the start`,
          );
        }
      }
    }
    return offset;
  },

  /**
   * In the first step the policy is the one that sampled: every ratio must be 1.
   * @throws {TroupeError} NUMERIC with the mean |log ratio| over the minibatch's tokens
   */
  firstStep(sums: Readonly<Record<string, number>>): void {
    const tokens = sums.tokens;
    if (tokens === undefined) return; // answered from the journal: it was checked when it was made
    const meanLogRatio = sums.absLogRatioSum / tokens;
    if (!(meanLogRatio <= LOGPROB_TOLERANCE)) {
      throw numericError(
        `step-0 preflight: learners and rollouts differ by ${meanLogRatio.toExponential(2)} in log-probability on average; expected at most ${LOGPROB_TOLERANCE}, since the policy was not trained yet. Check that both run the same engine and model`,
      );
    }
  },
};

function meanOffset(rollouts: readonly ScoredRollout[]): number {
  let [sum, tokens] = [0, 0];
  for (const { logprobs, refLogprobs } of rollouts) {
    tokens += logprobs.length;
    for (let i = 0; i < logprobs.length; i++) sum += Math.abs(logprobs[i] - refLogprobs[i]);
  }
  return tokens === 0 ? 0 : sum / tokens;
}

export interface IterationReport {
  readonly iteration: number;
  /** The version that was trained in this iteration. */
  readonly policyVersion: number;
  readonly experience: ExperienceStats;
  readonly update: UpdateStats;
  readonly klCoef: number;
  /** How long training waited for the collection. */
  readonly collectSeconds: number;
  /** Whether collecting and training overlap. */
  readonly isAsynchronous: boolean;
  readonly rollouts: readonly ScoredRollout[];
  /** Experiences of the iteration that were admitted and not trained. */
  readonly dropped: number;
  readonly learningRates: Readonly<Record<"actor" | "critic", number>>;
}

export function reportIteration(run: RunContext, report: IterationReport): void {
  const { bus, metrics, learners, config } = run;
  const { iteration, policyVersion, experience, update, klCoef, collectSeconds, rollouts } = report;
  const { dropped, learningRates, isAsynchronous } = report;
  const { sums, tokens, measuredSteps } = update;
  const perToken = (name: string): number => (sums[name] ?? NaN) / tokens;
  const perStep = (name: string): number => (sums[name] ?? NaN) / measuredSteps;
  const ratio = perToken("ratioSum");
  const updateSeconds = update.elapsedMs / 1000;
  const responseTokens = rollouts.reduce((total, rollout) => total + rollout.responseIds.length, 0);
  const eosCount = rollouts.filter((rollout) => rollout.finishReason === "eos").length;
  const staleness = rollouts.reduce((total, rollout) => total + policyVersion - rollout.policyVersion, 0);
  const numbers = {
    "objective/scores": experience.score.mean,
    "objective/kl": experience.kl,
    "objective/kl_coef": klCoef,
    "objective/non_score_reward": -klCoef * experience.kl,
    "objective/rlhf_reward": experience.rlhfReward,
    "objective/entropy": experience.entropy * experience.responseTokens.mean,
    "policy/approxkl_avg": perToken("approxKlSum"),
    "policy/clipfrac_avg": perToken("clipFracSum"),
    ...importanceNumbers(sums, tokens),
    "policy/entropy_avg": experience.entropy,
    "policy/grad_norm": learners.gradientNorms.actor ?? NaN,
    "value/grad_norm": learners.gradientNorms.critic ?? NaN,
    "loss/policy_avg": perStep("policyLoss"),
    "loss/value_avg": perStep("valueLoss"),
    "val/ratio": ratio,
    "val/ratio_var": perToken("ratioSquaredSum") - ratio * ratio,
    "val/clipfrac_avg": perToken("valueClipFracSum"),
    "val/explained_variance": experience.explainedVariance,
    "val/num_eos_tokens": eosCount,
    "val/eos_ratio": eosCount / rollouts.length,
    "val/stop_ratio": rollouts.filter(({ finishReason }) => finishReason === "stop").length / rollouts.length,
    "val/response_tokens": experience.responseTokens.mean,
    "data/staleness": staleness / rollouts.length,
    "data/dropped": dropped,
    "perf/rollout_seconds": collectSeconds,
    "perf/update_seconds": updateSeconds,
    "perf/allreduce_seconds": update.allReduceMs / 1000,
    "perf/tokens_per_second": responseTokens / (collectSeconds + (isAsynchronous ? updateSeconds : 0)),
    policy_version: policyVersion,
    episode: (iteration + 1) * experience.experiences,
    eps: experience.experiences / (collectSeconds + updateSeconds),
    lr: learningRates.actor,
    critic_lr: learningRates.critic,
  };
  metrics.rewardMean.set(experience.score.mean);
  metrics.klMean.set(experience.kl);
  metrics.klCoef.set(klCoef);
  metrics.approxKl.set(numbers["policy/approxkl_avg"]);
  metrics.policyLoss.set(numbers["loss/policy_avg"]);
  metrics.valueLoss.set(numbers["loss/value_avg"]);
  metrics.entropy.set(experience.entropy);
  bus.publish({
    type: "progress",
    stage: "ppo",
    completedUnits: iteration + 1,
    totalUnits: config.ppo.iterations,
    metrics: numbers,
  });
  if ((iteration + 1) % SAMPLES_EVERY_ITERATIONS === 0) {
    void showSamples(run, iteration + 1, rollouts.slice(0, 3)).catch((error: unknown) =>
      run.logger.warn({ err: error }, "samples could not be decoded"),
    );
  }
}

/** How the weights for stale tokens are distributed; nothing when nothing is weighed. */
function importanceNumbers(sums: UpdateStats["sums"], tokens: number): Record<string, number> {
  const { importanceSum: sum, importanceSquaredSum: squares, importanceCappedSum: capped } = sums;
  if (sum === undefined) return {};
  return {
    "policy/importance_avg": sum / tokens,
    "policy/importance_ess": (sum * sum) / (tokens * squares),
    "policy/importance_capped": capped / tokens,
  };
}

async function showSamples(
  run: RunContext,
  completedUnits: number,
  rollouts: readonly ScoredRollout[],
): Promise<void> {
  const prompts = await run.tokenizer.decode(rollouts.map((rollout) => rollout.promptIds));
  const responses = await run.tokenizer.decode(rollouts.map((rollout) => rollout.responseIds));
  const samples = rollouts.map(({ score }, i) => ({ prompt: prompts[i], response: responses[i], score }));
  run.bus.publish({ type: "samples", stage: "ppo", completedUnits, samples });
}
