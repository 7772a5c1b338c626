// Original file: proto/troupe/v1/rollout.proto


export interface TaskDone {
  'taskId'?: (string);
  'attempt'?: (number);
  /**
   * Compute time of generation and of scoring, milliseconds.
   */
  'generateMs'?: (number | string);
  'scoreMs'?: (number | string);
}

export interface TaskDone__Output {
  'taskId': (string);
  'attempt': (number);
  /**
   * Compute time of generation and of scoring, milliseconds.
   */
  'generateMs': (number);
  'scoreMs': (number);
}
