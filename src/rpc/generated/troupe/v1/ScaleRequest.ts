// Original file: proto/troupe/v1/control.proto


export interface ScaleRequest {
  /**
   * "rollout" or "learner".
   */
  'role'?: (string);
  'count'?: (number);
}

export interface ScaleRequest__Output {
  /**
   * "rollout" or "learner".
   */
  'role': (string);
  'count': (number);
}
