// Original file: proto/troupe/v1/learner.proto

import type { TreeNode as _troupe_v1_TreeNode, TreeNode__Output as _troupe_v1_TreeNode__Output } from '../../troupe/v1/TreeNode.js';

export interface AverageParameters {
  'generation'?: (number);
  'step'?: (number);
  /**
   * Of the sum; unset when this learner trained nothing and only takes the average.
   */
  'node'?: (_troupe_v1_TreeNode | null);
  /**
   * Share of all rows trained in the round, 0 to 1.
   */
  'weight'?: (number | string);
  /**
   * As TrainStep.time_limit_ms, for the average.
   */
  'timeLimitMs'?: (number);
}

export interface AverageParameters__Output {
  'generation': (number);
  'step': (number);
  /**
   * Of the sum; unset when this learner trained nothing and only takes the average.
   */
  'node': (_troupe_v1_TreeNode__Output | null);
  /**
   * Share of all rows trained in the round, 0 to 1.
   */
  'weight': (number);
  /**
   * As TrainStep.time_limit_ms, for the average.
   */
  'timeLimitMs': (number);
}
