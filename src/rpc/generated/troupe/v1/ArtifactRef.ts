// Original file: proto/troupe/v1/common.proto

import type { Long } from '@grpc/proto-loader';

/**
 * One immutable file held by the coordinator.
 */
export interface ArtifactRef {
  /**
   * For example "actor/7" (role and policy version) or "checkpoint/ppo/10".
   */
  'name'?: (string);
  'sizeBytes'?: (number | string | Long);
  /**
   * Lower-case hex sha256 of the whole file.
   */
  'sha256'?: (string);
  /**
   * Where the file lies on the coordinator's host; a worker on the same host reads it there after checking its size.
   */
  'localPath'?: (string);
}

/**
 * One immutable file held by the coordinator.
 */
export interface ArtifactRef__Output {
  /**
   * For example "actor/7" (role and policy version) or "checkpoint/ppo/10".
   */
  'name': (string);
  'sizeBytes': (number);
  /**
   * Lower-case hex sha256 of the whole file.
   */
  'sha256': (string);
  /**
   * Where the file lies on the coordinator's host; a worker on the same host reads it there after checking its size.
   */
  'localPath': (string);
}
