/**
 * The numbers in a `progress` event, by name. In ppo they are TRL's names where TRL has one, so TensorBoard layouts
 * and notebooks made for TRL fit; the rest is ours. docs/metrics.md is rendered from this table too.
 */
export interface RunRecordSpec {
  readonly stages: readonly ("sft" | "reward" | "ppo")[];
  readonly help: string;
  readonly healthy: string;
}

const ppo = ["ppo"] as const;
const supervised = ["sft", "reward"] as const;
const all = ["sft", "reward", "ppo"] as const;

export const RUN_RECORDS = {
  "objective/scores": {
    stages: ppo,
    help: "mean reward-model score of the answers",
    healthy: "rises, then levels off",
  },
  "objective/kl": {
    stages: ppo,
    help: "mean over answers of Σ log π − log π_ref, nats",
    healthy: "0 at the start, 0 to 20 after",
  },
  "objective/kl_coef": {
    stages: ppo,
    help: "weight of the KL penalty in the rewards",
    healthy: "constant, or slowly moving",
  },
  "objective/non_score_reward": {
    stages: ppo,
    help: "mean over answers of −klCoef·KL",
    healthy: "small against the score",
  },
  "objective/rlhf_reward": { stages: ppo, help: "scores + non_score_reward", healthy: "rises" },
  "objective/entropy": {
    stages: ppo,
    help: "mean over answers of −Σ log π(token), nats",
    healthy: "falls slowly",
  },
  "policy/approxkl_avg": {
    stages: ppo,
    help: "mean of ½(log π_new − log π_old)² over counted tokens",
    healthy: "below 0.05",
  },
  "policy/clipfrac_avg": {
    stages: ppo,
    help: "share of counted tokens clipped in the policy loss",
    healthy: "0.01 to 0.3",
  },
  "policy/importance_avg": {
    stages: ppo,
    help: "mean weight π_prox / π_behav of counted tokens, capped; only with ppo.staleness and a correction",
    healthy: "1 ± 0.1",
  },
  "policy/importance_ess": {
    stages: ppo,
    help: "effective share of the counted tokens, (Σ weight)² / (tokens · Σ weight²)",
    healthy: "above 0.5; falling means staleness costs more data than it saves time",
  },
  "policy/importance_capped": {
    stages: ppo,
    help: "share of counted tokens whose weight passed ppo.importanceCap",
    healthy: "below 0.01",
  },
  "policy/entropy_avg": {
    stages: ppo,
    help: "mean −log π(token) over counted tokens, nats",
    healthy: "falls slowly; near 0 is collapse",
  },
  "policy/grad_norm": {
    stages: ppo,
    help: "L2 norm of the actor's gradients before clipping",
    healthy: "steady",
  },
  "value/grad_norm": {
    stages: ppo,
    help: "L2 norm of the critic's gradients before clipping",
    healthy: "steady",
  },
  "loss/policy_avg": { stages: ppo, help: "clipped policy loss", healthy: "around 0" },
  "loss/value_avg": { stages: ppo, help: "clipped value loss", healthy: "falls, then levels off" },
  "val/ratio": { stages: ppo, help: "mean of π_new / π_old over counted tokens", healthy: "1 ± 0.05" },
  "val/ratio_var": {
    stages: ppo,
    help: "variance of π_new / π_old over counted tokens",
    healthy: "below 0.1",
  },
  "val/clipfrac_avg": {
    stages: ppo,
    help: "share of counted tokens clipped in the value loss",
    healthy: "below 0.3",
  },
  "val/explained_variance": {
    stages: ppo,
    help: "1 − Var(returns − values) / Var(returns) over counted tokens",
    healthy: "rises towards 1; below 0 the critic is worse than a constant",
  },
  "val/num_eos_tokens": {
    stages: ppo,
    help: "answers the model ended itself, count",
    healthy: "does not fall",
  },
  "val/eos_ratio": {
    stages: ppo,
    help: "share of answers the model ended itself",
    healthy: "does not fall",
  },
  "val/stop_ratio": {
    stages: ppo,
    help: "share of answers that ended with a stop string (generation.stopStrings)",
    healthy: "0 without stop strings",
  },
  "val/response_tokens": { stages: ppo, help: "mean answer length, tokens", healthy: "no sudden jump" },
  "data/staleness": {
    stages: ppo,
    help: "mean policy versions between sampling and training",
    healthy: "0 when synchronous",
  },
  "data/dropped": {
    stages: ppo,
    help: "experiences of the iteration that were not trained, count",
    healthy: "0",
  },
  "perf/rollout_seconds": {
    stages: ppo,
    help: "wall time that training waited for the collection, seconds",
    healthy: "steady",
  },
  "perf/update_seconds": { stages: ppo, help: "wall time of the PPO epochs, seconds", healthy: "steady" },
  "perf/allreduce_seconds": {
    stages: all,
    help: "time in the all-reduce, seconds",
    healthy: "below a third of the update",
  },
  "perf/tokens_per_second": {
    stages: all,
    help: "ppo: generated tokens / rollout_seconds (asynchronous: / seconds of the iteration); sft, reward: trained tokens / step time",
    healthy: "steady",
  },
  policy_version: { stages: ppo, help: "version trained in this iteration", healthy: "grows by 1" },
  episode: { stages: ppo, help: "experiences trained so far", healthy: "grows" },
  eps: { stages: ppo, help: "experiences trained per second of run time", healthy: "steady" },
  lr: { stages: all, help: "learning rate (the actor's in ppo)", healthy: "follows the schedule" },
  critic_lr: { stages: ppo, help: "learning rate of the critic", healthy: "follows the schedule" },
  loss: { stages: supervised, help: "training loss, nats", healthy: "falls; reward starts at ln 2" },
  accuracy: {
    stages: ["reward"],
    help: "share of pairs with score(chosen) > score(rejected)",
    healthy: "rises above 0.5",
  },
  grad_norm: { stages: supervised, help: "L2 norm of the gradients before clipping", healthy: "steady" },
  eval_loss: { stages: supervised, help: "loss on held-out rows", healthy: "falls with the loss" },
  eval_accuracy: { stages: ["reward"], help: "accuracy on held-out pairs", healthy: "0.6 to 0.9" },
} as const satisfies Readonly<Record<string, RunRecordSpec>>;
