// Original file: proto/troupe/v1/learner.proto


export interface Reducer {
  /**
   * Empty: the coordinator.
   */
  'workerId'?: (string);
  /**
   * Empty: the host this learner reaches the coordinator at.
   */
  'host'?: (string);
  'port'?: (number);
}

export interface Reducer__Output {
  /**
   * Empty: the coordinator.
   */
  'workerId': (string);
  /**
   * Empty: the host this learner reaches the coordinator at.
   */
  'host': (string);
  'port': (number);
}
