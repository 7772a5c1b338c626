// Original file: proto/troupe/v1/rollout.proto

import type { RolloutTask as _troupe_v1_RolloutTask, RolloutTask__Output as _troupe_v1_RolloutTask__Output } from '../../troupe/v1/RolloutTask.js';
import type { ExperienceAcks as _troupe_v1_ExperienceAcks, ExperienceAcks__Output as _troupe_v1_ExperienceAcks__Output } from '../../troupe/v1/ExperienceAcks.js';
import type { CancelTask as _troupe_v1_CancelTask, CancelTask__Output as _troupe_v1_CancelTask__Output } from '../../troupe/v1/CancelTask.js';

export interface RolloutDirective {
  'task'?: (_troupe_v1_RolloutTask | null);
  'acks'?: (_troupe_v1_ExperienceAcks | null);
  /**
   * Nobody needs the rest of this attempt: it was given away, or somebody else was first.
   */
  'cancel'?: (_troupe_v1_CancelTask | null);
  'directive'?: "task"|"acks"|"cancel";
}

export interface RolloutDirective__Output {
  'task'?: (_troupe_v1_RolloutTask__Output | null);
  'acks'?: (_troupe_v1_ExperienceAcks__Output | null);
  /**
   * Nobody needs the rest of this attempt: it was given away, or somebody else was first.
   */
  'cancel'?: (_troupe_v1_CancelTask__Output | null);
  'directive'?: "task"|"acks"|"cancel";
}
