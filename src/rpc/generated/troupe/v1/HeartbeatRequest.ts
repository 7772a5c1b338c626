// Original file: proto/troupe/v1/membership.proto

import type { Sender as _troupe_v1_Sender, Sender__Output as _troupe_v1_Sender__Output } from '../../troupe/v1/Sender.js';
import type { Long } from '@grpc/proto-loader';

export interface HeartbeatRequest {
  'sender'?: (_troupe_v1_Sender | null);
  /**
   * Counts finished pieces of work; a worker whose counter moves is alive even when a task takes long.
   */
  'progress'?: (number | string | Long);
  /**
   * Learners: last optimizer step applied in the current stage.
   */
  'appliedStep'?: (number);
  /**
   * Rollouts: policy version now loaded.
   */
  'policyVersion'?: (number);
  '_appliedStep'?: "appliedStep";
  '_policyVersion'?: "policyVersion";
}

export interface HeartbeatRequest__Output {
  'sender': (_troupe_v1_Sender__Output | null);
  /**
   * Counts finished pieces of work; a worker whose counter moves is alive even when a task takes long.
   */
  'progress': (number);
  /**
   * Learners: last optimizer step applied in the current stage.
   */
  'appliedStep'?: (number);
  /**
   * Rollouts: policy version now loaded.
   */
  'policyVersion'?: (number);
  '_appliedStep'?: "appliedStep";
  '_policyVersion'?: "policyVersion";
}
