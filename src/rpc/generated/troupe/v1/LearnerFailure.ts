// Original file: proto/troupe/v1/learner.proto


export interface LearnerFailure {
  'errorCode'?: (string);
  'message'?: (string);
  /**
   * Another learner that could not be reached, or did not do its part of a sum among learners; empty: none.
   */
  'suspectWorkerId'?: (string);
  /**
   * The attempt it is about; 0 in the answer to a directive.
   */
  'generation'?: (number);
  'step'?: (number);
  /**
   * The step was committed and could not be applied: this learner holds no usable state any more.
   */
  'isDecided'?: (boolean);
}

export interface LearnerFailure__Output {
  'errorCode': (string);
  'message': (string);
  /**
   * Another learner that could not be reached, or did not do its part of a sum among learners; empty: none.
   */
  'suspectWorkerId': (string);
  /**
   * The attempt it is about; 0 in the answer to a directive.
   */
  'generation': (number);
  'step': (number);
  /**
   * The step was committed and could not be applied: this learner holds no usable state any more.
   */
  'isDecided': (boolean);
}
