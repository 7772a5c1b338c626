// Original file: proto/troupe/v1/rollout.proto

import type { ModelRef as _troupe_v1_ModelRef, ModelRef__Output as _troupe_v1_ModelRef__Output } from '../../troupe/v1/ModelRef.js';
import type { TokenizerInfo as _troupe_v1_TokenizerInfo, TokenizerInfo__Output as _troupe_v1_TokenizerInfo__Output } from '../../troupe/v1/TokenizerInfo.js';
import type { PromptRow as _troupe_v1_PromptRow, PromptRow__Output as _troupe_v1_PromptRow__Output } from '../../troupe/v1/PromptRow.js';
import type { Sampling as _troupe_v1_Sampling, Sampling__Output as _troupe_v1_Sampling__Output } from '../../troupe/v1/Sampling.js';
import type { StopTable as _troupe_v1_StopTable, StopTable__Output as _troupe_v1_StopTable__Output } from '../../troupe/v1/StopTable.js';

/**
 * Generate one answer per prompt and, for experiences, score it.
 */
export interface RolloutTask {
  'taskId'?: (string);
  /**
   * Delivery count of this task, from 1.
   */
  'attempt'?: (number);
  /**
   * Version of actor and critic to use; ref and reward are fixed within a stage.
   */
  'policyVersion'?: (number);
  'models'?: (_troupe_v1_ModelRef)[];
  'tokenizer'?: (_troupe_v1_TokenizerInfo | null);
  'prompts'?: (_troupe_v1_PromptRow)[];
  'sampling'?: (_troupe_v1_Sampling | null);
  /**
   * Also compute ref_logprobs, values and score (experience tasks and evaluations).
   */
  'score'?: (boolean);
  /**
   * An answer also ends with the token that completes a stop string; absent: there are none.
   */
  'stops'?: (_troupe_v1_StopTable | null);
}

/**
 * Generate one answer per prompt and, for experiences, score it.
 */
export interface RolloutTask__Output {
  'taskId': (string);
  /**
   * Delivery count of this task, from 1.
   */
  'attempt': (number);
  /**
   * Version of actor and critic to use; ref and reward are fixed within a stage.
   */
  'policyVersion': (number);
  'models': (_troupe_v1_ModelRef__Output)[];
  'tokenizer': (_troupe_v1_TokenizerInfo__Output | null);
  'prompts': (_troupe_v1_PromptRow__Output)[];
  'sampling': (_troupe_v1_Sampling__Output | null);
  /**
   * Also compute ref_logprobs, values and score (experience tasks and evaluations).
   */
  'score': (boolean);
  /**
   * An answer also ends with the token that completes a stop string; absent: there are none.
   */
  'stops': (_troupe_v1_StopTable__Output | null);
}
