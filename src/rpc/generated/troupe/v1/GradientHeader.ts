// Original file: proto/troupe/v1/learner.proto

import type { Sender as _troupe_v1_Sender, Sender__Output as _troupe_v1_Sender__Output } from '../../troupe/v1/Sender.js';
import type { TreeNode as _troupe_v1_TreeNode, TreeNode__Output as _troupe_v1_TreeNode__Output } from '../../troupe/v1/TreeNode.js';
import type { Long } from '@grpc/proto-loader';

export interface GradientHeader {
  'sender'?: (_troupe_v1_Sender | null);
  'generation'?: (number);
  'step'?: (number);
  /**
   * Nodes of the reduction tree this learner contributes, in the order their buckets follow each other.
   */
  'nodes'?: (_troupe_v1_TreeNode)[];
  /**
   * float32 elements of one gradient.
   */
  'elementCount'?: (number | string | Long);
  /**
   * Elements per bucket (the last one may be shorter).
   */
  'bucketElements'?: (number);
  /**
   * The last so many buckets are still being computed. How long they take is for the step's deadline; those before them
   * come at once.
   */
  'laterBuckets'?: (number);
}

export interface GradientHeader__Output {
  'sender': (_troupe_v1_Sender__Output | null);
  'generation': (number);
  'step': (number);
  /**
   * Nodes of the reduction tree this learner contributes, in the order their buckets follow each other.
   */
  'nodes': (_troupe_v1_TreeNode__Output)[];
  /**
   * float32 elements of one gradient.
   */
  'elementCount': (number);
  /**
   * Elements per bucket (the last one may be shorter).
   */
  'bucketElements': (number);
  /**
   * The last so many buckets are still being computed. How long they take is for the step's deadline; those before them
   * come at once.
   */
  'laterBuckets': (number);
}
