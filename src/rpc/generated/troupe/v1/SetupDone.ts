// Original file: proto/troupe/v1/learner.proto

import type { Long } from '@grpc/proto-loader';

export interface SetupDone {
  'appliedStep'?: (number);
  /**
   * Parameters in all trained models together.
   */
  'parameterCount'?: (number | string | Long);
}

export interface SetupDone__Output {
  'appliedStep': (number);
  /**
   * Parameters in all trained models together.
   */
  'parameterCount': (number);
}
