// Original file: proto/troupe/v1/learner.proto


/**
 * The update that this learner voted for, and holds, was committed while it could not hear it. Answered by SetupDone.
 */
export interface ApplyVoted {
  'stage'?: (string);
  'step'?: (number);
  'digest'?: (string);
  'healId'?: (number);
}

/**
 * The update that this learner voted for, and holds, was committed while it could not hear it. Answered by SetupDone.
 */
export interface ApplyVoted__Output {
  'stage': (string);
  'step': (number);
  'digest': (string);
  'healId': (number);
}
