// Original file: proto/troupe/v1/learner.proto

import type { LanguageRows as _troupe_v1_LanguageRows, LanguageRows__Output as _troupe_v1_LanguageRows__Output } from '../../troupe/v1/LanguageRows.js';

export interface ExperienceRows {
  /**
   * uint32[rows]
   */
  'promptLengths'?: (Buffer | Uint8Array | string);
  /**
   * uint32[rows]
   */
  'responseLengths'?: (Buffer | Uint8Array | string);
  /**
   * int32[sum(prompt + response)], row by row, prompt first
   */
  'ids'?: (Buffer | Uint8Array | string);
  /**
   * float32[sum(response_lengths)] each
   */
  'logprobs'?: (Buffer | Uint8Array | string);
  'values'?: (Buffer | Uint8Array | string);
  'advantages'?: (Buffer | Uint8Array | string);
  'returns'?: (Buffer | Uint8Array | string);
  /**
   * uint8[sum(response_lengths)]
   */
  'actionMask'?: (Buffer | Uint8Array | string);
  /**
   * Rows mixed in as a language-model loss; unset without ptx.
   */
  'ptx'?: (_troupe_v1_LanguageRows | null);
  /**
   * float32[sum(response_lengths)], log-probabilities under the policy at the start of the update; unset when that is
   * the one that sampled every row (then they are `logprobs`).
   */
  'proximalLogprobs'?: (Buffer | Uint8Array | string);
  '_proximalLogprobs'?: "proximalLogprobs";
}

export interface ExperienceRows__Output {
  /**
   * uint32[rows]
   */
  'promptLengths': (Buffer);
  /**
   * uint32[rows]
   */
  'responseLengths': (Buffer);
  /**
   * int32[sum(prompt + response)], row by row, prompt first
   */
  'ids': (Buffer);
  /**
   * float32[sum(response_lengths)] each
   */
  'logprobs': (Buffer);
  'values': (Buffer);
  'advantages': (Buffer);
  'returns': (Buffer);
  /**
   * uint8[sum(response_lengths)]
   */
  'actionMask': (Buffer);
  /**
   * Rows mixed in as a language-model loss; unset without ptx.
   */
  'ptx': (_troupe_v1_LanguageRows__Output | null);
  /**
   * float32[sum(response_lengths)], log-probabilities under the policy at the start of the update; unset when that is
   * the one that sampled every row (then they are `logprobs`).
   */
  'proximalLogprobs'?: (Buffer);
  '_proximalLogprobs'?: "proximalLogprobs";
}
