// Original file: proto/troupe/v1/common.proto

import type { Long } from '@grpc/proto-loader';

/**
 * Who speaks. Sent with every mutating call, so that a late message of a replaced process changes nothing.
 */
export interface Sender {
  /**
   * The run this process joined; from RegisterReply.
   */
  'runId'?: (string);
  /**
   * Coordinator start counter, from RegisterReply; a message of an older epoch is refused (FAILED_PRECONDITION).
   */
  'epoch'?: (number);
  /**
   * Stable name, for example "rollout-0".
   */
  'workerId'?: (string);
  /**
   * Grows with every registration of the same worker_id; an older incarnation is fenced.
   */
  'incarnation'?: (number | string | Long);
}

/**
 * Who speaks. Sent with every mutating call, so that a late message of a replaced process changes nothing.
 */
export interface Sender__Output {
  /**
   * The run this process joined; from RegisterReply.
   */
  'runId': (string);
  /**
   * Coordinator start counter, from RegisterReply; a message of an older epoch is refused (FAILED_PRECONDITION).
   */
  'epoch': (number);
  /**
   * Stable name, for example "rollout-0".
   */
  'workerId': (string);
  /**
   * Grows with every registration of the same worker_id; an older incarnation is fenced.
   */
  'incarnation': (number);
}
