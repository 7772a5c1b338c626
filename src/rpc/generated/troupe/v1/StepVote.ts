// Original file: proto/troupe/v1/learner.proto

import type { ShardStats as _troupe_v1_ShardStats, ShardStats__Output as _troupe_v1_ShardStats__Output } from '../../troupe/v1/ShardStats.js';

export interface StepVote {
  'generation'?: (number);
  'step'?: (number);
  'isFinite'?: (boolean);
  /**
   * crc32 of the summed gradient bytes; all members must agree.
   */
  'gradientCrc32'?: (number);
  'stats'?: (_troupe_v1_ShardStats)[];
  /**
   * Time this learner computed and waited for the all-reduce, milliseconds.
   */
  'computeMs'?: (number | string);
  'allReduceMs'?: (number | string);
}

export interface StepVote__Output {
  'generation': (number);
  'step': (number);
  'isFinite': (boolean);
  /**
   * crc32 of the summed gradient bytes; all members must agree.
   */
  'gradientCrc32': (number);
  'stats': (_troupe_v1_ShardStats__Output)[];
  /**
   * Time this learner computed and waited for the all-reduce, milliseconds.
   */
  'computeMs': (number);
  'allReduceMs': (number);
}
