/**
 * What flows through RLHF, one type per stage, so that a value cannot be used before it exists:
 *
 *   Prompt ─generate─► Rollout ─score─► ScoredRollout ─makeExperience─► Experience ─shuffle, split─► minibatch
 *
 * Alignment, everywhere: P prompt tokens, R response tokens. Every per-token array has length R and index i belongs
 * to response token i, i.e. sequence position P + i, predicted by the logits at position P + i − 1. `values[i]`
 * is V(s_i), read at position P + i − 1 (the state before token i).
 */

/** Unique for the life of a run: `"<iteration>/<promptIndex>/<sampleIndex>"`. A redelivered task makes the same ids. */
export type ExperienceId = string;

export interface Prompt {
  /** Position in the PPO data split; stable for the run. */
  readonly promptIndex: number;
  /** Which of several samples of the same prompt this is, from 0. */
  readonly sampleIndex: number;
  readonly experienceId: ExperienceId;
  /** `[P]` */
  readonly promptIds: Int32Array;
}

/**
 * "eos": the model ended the answer itself; "stop": its text came to hold a stop string, and the token that completed
 * it is the last one (nothing is cut off or added, so every token kept was sampled as it stands); "length": cut at
 * maxNewTokens (truncated, no EOS token was forged).
 */
export type FinishReason = "eos" | "stop" | "length";

export interface Rollout extends Prompt {
  /** Version of the policy that sampled it. */
  readonly policyVersion: number;
  /** `[R]`, including the EOS token when finishReason is "eos". */
  readonly responseIds: Int32Array;
  /** `[R]` log π_old(token) under the distribution actually sampled from (temperature included). */
  readonly logprobs: Float32Array;
  readonly finishReason: FinishReason;
}

export interface ScoredRollout extends Rollout {
  /** `[R]` log π_ref(token), same temperature as `logprobs`. */
  readonly refLogprobs: Float32Array;
  /** `[R]` V(s_i) from the critic. */
  readonly values: Float32Array;
  /** Reward model's score of the whole sequence, read at its last token; not clipped. */
  readonly score: number;
  /** `[R]` log π_prox(token): the policy at the start of the update. Left out when that is the one that sampled. */
  readonly proximalLogprobs?: Float32Array;
}

export interface Experience extends ScoredRollout {
  /** `[R]` −klCoef·kl_i, plus `sequenceReward` of the score at the last token, counted or not. */
  readonly rewards: Float32Array;
  /** `[R]` */
  readonly advantages: Float32Array;
  /** `[R]` */
  readonly returns: Float32Array;
  /** `[R]` 1 where the token counts in the losses. All ones by default; the deepspeed-chat preset masks an EOS that equals the pad id. */
  readonly actionMask: Uint8Array;
}
