// Original file: proto/troupe/v1/membership.proto

import type { Sender as _troupe_v1_Sender, Sender__Output as _troupe_v1_Sender__Output } from '../../troupe/v1/Sender.js';
import type { TaskProgress as _troupe_v1_TaskProgress, TaskProgress__Output as _troupe_v1_TaskProgress__Output } from '../../troupe/v1/TaskProgress.js';

export interface HeartbeatRequest {
  'sender'?: (_troupe_v1_Sender | null);
  /**
   * Learners: last optimizer step applied in the current stage.
   */
  'appliedStep'?: (number);
  /**
   * Rollouts: policy version now loaded.
   */
  'policyVersion'?: (number);
  /**
   * Rollouts: the tasks held, in the order they are worked on.
   */
  'tasks'?: (_troupe_v1_TaskProgress)[];
  '_appliedStep'?: "appliedStep";
  '_policyVersion'?: "policyVersion";
}

export interface HeartbeatRequest__Output {
  'sender': (_troupe_v1_Sender__Output | null);
  /**
   * Learners: last optimizer step applied in the current stage.
   */
  'appliedStep'?: (number);
  /**
   * Rollouts: policy version now loaded.
   */
  'policyVersion'?: (number);
  /**
   * Rollouts: the tasks held, in the order they are worked on.
   */
  'tasks': (_troupe_v1_TaskProgress__Output)[];
  '_appliedStep'?: "appliedStep";
  '_policyVersion'?: "policyVersion";
}
