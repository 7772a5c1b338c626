// Original file: proto/troupe/v1/learner.proto

import type { Long } from '@grpc/proto-loader';

export interface SetupDone {
  /**
   * Echo of SetupStage.heal_id.
   */
  'healId'?: (number);
  'appliedStep'?: (number);
  /**
   * Parameters in all trained models together.
   */
  'parameterCount'?: (number | string | Long);
  /**
   * Digest of the history that led to the state, hex.
   */
  'digest'?: (string);
}

export interface SetupDone__Output {
  /**
   * Echo of SetupStage.heal_id.
   */
  'healId': (number);
  'appliedStep': (number);
  /**
   * Parameters in all trained models together.
   */
  'parameterCount': (number);
  /**
   * Digest of the history that led to the state, hex.
   */
  'digest': (string);
}
