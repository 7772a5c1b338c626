// Original file: proto/troupe/v1/membership.proto

import type { Long } from '@grpc/proto-loader';

export interface TaskProgress {
  'taskId'?: (string);
  'attempt'?: (number);
  /**
   * 0 while others are before it; then it grows with every token, scoring pass and piece of a model file. A task whose
   * counter grows does not time out.
   */
  'tokens'?: (number | string | Long);
}

export interface TaskProgress__Output {
  'taskId': (string);
  'attempt': (number);
  /**
   * 0 while others are before it; then it grows with every token, scoring pass and piece of a model file. A task whose
   * counter grows does not time out.
   */
  'tokens': (number);
}
