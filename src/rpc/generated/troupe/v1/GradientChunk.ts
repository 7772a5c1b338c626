// Original file: proto/troupe/v1/learner.proto

import type { GradientHeader as _troupe_v1_GradientHeader, GradientHeader__Output as _troupe_v1_GradientHeader__Output } from '../../troupe/v1/GradientHeader.js';
import type { GradientBucket as _troupe_v1_GradientBucket, GradientBucket__Output as _troupe_v1_GradientBucket__Output } from '../../troupe/v1/GradientBucket.js';

export interface GradientChunk {
  'header'?: (_troupe_v1_GradientHeader | null);
  'bucket'?: (_troupe_v1_GradientBucket | null);
  'chunk'?: "header"|"bucket";
}

export interface GradientChunk__Output {
  'header'?: (_troupe_v1_GradientHeader__Output | null);
  'bucket'?: (_troupe_v1_GradientBucket__Output | null);
  'chunk'?: "header"|"bucket";
}
