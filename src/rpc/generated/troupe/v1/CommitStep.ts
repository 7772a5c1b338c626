// Original file: proto/troupe/v1/learner.proto


export interface CommitStep {
  'generation'?: (number);
  'step'?: (number);
  /**
   * False: nobody applies (a non-finite vote); the step is skipped.
   */
  'apply'?: (boolean);
}

export interface CommitStep__Output {
  'generation': (number);
  'step': (number);
  /**
   * False: nobody applies (a non-finite vote); the step is skipped.
   */
  'apply': (boolean);
}
