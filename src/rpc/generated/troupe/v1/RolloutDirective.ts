// Original file: proto/troupe/v1/rollout.proto

import type { RolloutTask as _troupe_v1_RolloutTask, RolloutTask__Output as _troupe_v1_RolloutTask__Output } from '../../troupe/v1/RolloutTask.js';
import type { ExperienceAck as _troupe_v1_ExperienceAck, ExperienceAck__Output as _troupe_v1_ExperienceAck__Output } from '../../troupe/v1/ExperienceAck.js';

export interface RolloutDirective {
  'task'?: (_troupe_v1_RolloutTask | null);
  'ack'?: (_troupe_v1_ExperienceAck | null);
  'directive'?: "task"|"ack";
}

export interface RolloutDirective__Output {
  'task'?: (_troupe_v1_RolloutTask__Output | null);
  'ack'?: (_troupe_v1_ExperienceAck__Output | null);
  'directive'?: "task"|"ack";
}
