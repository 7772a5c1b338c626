// Original file: proto/troupe/v1/rollout.proto

import type { ExperienceAck as _troupe_v1_ExperienceAck, ExperienceAck__Output as _troupe_v1_ExperienceAck__Output } from '../../troupe/v1/ExperienceAck.js';

export interface ExperienceAcks {
  'acks'?: (_troupe_v1_ExperienceAck)[];
}

export interface ExperienceAcks__Output {
  'acks': (_troupe_v1_ExperienceAck__Output)[];
}
