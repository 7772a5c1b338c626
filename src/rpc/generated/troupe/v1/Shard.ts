// Original file: proto/troupe/v1/learner.proto

import type { LanguageRows as _troupe_v1_LanguageRows, LanguageRows__Output as _troupe_v1_LanguageRows__Output } from '../../troupe/v1/LanguageRows.js';
import type { PreferenceRows as _troupe_v1_PreferenceRows, PreferenceRows__Output as _troupe_v1_PreferenceRows__Output } from '../../troupe/v1/PreferenceRows.js';
import type { ExperienceRows as _troupe_v1_ExperienceRows, ExperienceRows__Output as _troupe_v1_ExperienceRows__Output } from '../../troupe/v1/ExperienceRows.js';

/**
 * Rows of one micro-shard, ragged: `lengths` cuts the concatenated columns.
 */
export interface Shard {
  'index'?: (number);
  'sft'?: (_troupe_v1_LanguageRows | null);
  'reward'?: (_troupe_v1_PreferenceRows | null);
  'ppo'?: (_troupe_v1_ExperienceRows | null);
  'rows'?: "sft"|"reward"|"ppo";
}

/**
 * Rows of one micro-shard, ragged: `lengths` cuts the concatenated columns.
 */
export interface Shard__Output {
  'index': (number);
  'sft'?: (_troupe_v1_LanguageRows__Output | null);
  'reward'?: (_troupe_v1_PreferenceRows__Output | null);
  'ppo'?: (_troupe_v1_ExperienceRows__Output | null);
  'rows'?: "sft"|"reward"|"ppo";
}
