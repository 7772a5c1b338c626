// Original file: proto/troupe/v1/rollout.proto

import type { FinishReason as _troupe_v1_FinishReason, FinishReason__Output as _troupe_v1_FinishReason__Output } from '../../troupe/v1/FinishReason.js';

/**
 * One answer with everything PPO needs. P prompt tokens, R response tokens; index i of a per-token column belongs to
 * response token i.
 */
export interface Experience {
  'taskId'?: (string);
  'attempt'?: (number);
  'experienceId'?: (string);
  'promptIndex'?: (number);
  'sampleIndex'?: (number);
  'policyVersion'?: (number);
  /**
   * int32[P]
   */
  'promptIds'?: (Buffer | Uint8Array | string);
  /**
   * int32[R]
   */
  'responseIds'?: (Buffer | Uint8Array | string);
  /**
   * float32[R], natural logarithm, under the distribution sampled from
   */
  'logprobs'?: (Buffer | Uint8Array | string);
  /**
   * float32[R]; empty when the task did not ask for scores
   */
  'refLogprobs'?: (Buffer | Uint8Array | string);
  /**
   * float32[R]; empty when the task did not ask for scores
   */
  'values'?: (Buffer | Uint8Array | string);
  /**
   * Reward model's score, not clipped, not normalised; 0 when the task did not ask for scores.
   */
  'score'?: (number | string);
  'finishReason'?: (_troupe_v1_FinishReason);
}

/**
 * One answer with everything PPO needs. P prompt tokens, R response tokens; index i of a per-token column belongs to
 * response token i.
 */
export interface Experience__Output {
  'taskId': (string);
  'attempt': (number);
  'experienceId': (string);
  'promptIndex': (number);
  'sampleIndex': (number);
  'policyVersion': (number);
  /**
   * int32[P]
   */
  'promptIds': (Buffer);
  /**
   * int32[R]
   */
  'responseIds': (Buffer);
  /**
   * float32[R], natural logarithm, under the distribution sampled from
   */
  'logprobs': (Buffer);
  /**
   * float32[R]; empty when the task did not ask for scores
   */
  'refLogprobs': (Buffer);
  /**
   * float32[R]; empty when the task did not ask for scores
   */
  'values': (Buffer);
  /**
   * Reward model's score, not clipped, not normalised; 0 when the task did not ask for scores.
   */
  'score': (number);
  'finishReason': (_troupe_v1_FinishReason__Output);
}
