// Original file: proto/troupe/v1/learner.proto


export interface LearnerFailure {
  'errorCode'?: (string);
  'message'?: (string);
  /**
   * Another learner whose fault it seems to be; empty: none.
   */
  'suspectWorkerId'?: (string);
}

export interface LearnerFailure__Output {
  'errorCode': (string);
  'message': (string);
  /**
   * Another learner whose fault it seems to be; empty: none.
   */
  'suspectWorkerId': (string);
}
