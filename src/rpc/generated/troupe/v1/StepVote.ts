// Original file: proto/troupe/v1/learner.proto

import type { ShardStats as _troupe_v1_ShardStats, ShardStats__Output as _troupe_v1_ShardStats__Output } from '../../troupe/v1/ShardStats.js';

export interface StepVote {
  'generation'?: (number);
  'step'?: (number);
  /**
   * Every element, and every model's norm as float32.
   */
  'isFinite'?: (boolean);
  /**
   * Checksum of the summed gradient (src/learner/total-gradient.ts); all members must agree.
   */
  'gradientHash'?: (number);
  'stats'?: (_troupe_v1_ShardStats)[];
  /**
   * Time this learner computed and waited for the all-reduce, milliseconds.
   */
  'computeMs'?: (number | string);
  'allReduceMs'?: (number | string);
  /**
   * Digest of the state after the step: that of the state before it, and the gradient. All members must agree, hence
   * only learners with one history commit together. Empty when not finite.
   */
  'digest'?: (string);
}

export interface StepVote__Output {
  'generation': (number);
  'step': (number);
  /**
   * Every element, and every model's norm as float32.
   */
  'isFinite': (boolean);
  /**
   * Checksum of the summed gradient (src/learner/total-gradient.ts); all members must agree.
   */
  'gradientHash': (number);
  'stats': (_troupe_v1_ShardStats__Output)[];
  /**
   * Time this learner computed and waited for the all-reduce, milliseconds.
   */
  'computeMs': (number);
  'allReduceMs': (number);
  /**
   * Digest of the state after the step: that of the state before it, and the gradient. All members must agree, hence
   * only learners with one history commit together. Empty when not finite.
   */
  'digest': (string);
}
