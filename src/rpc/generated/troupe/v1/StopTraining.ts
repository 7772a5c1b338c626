// Original file: proto/troupe/v1/learner.proto


/**
 * Others have finished the round: finish the minibatch at hand, then report.
 */
export interface StopTraining {
  'generation'?: (number);
  'step'?: (number);
}

/**
 * Others have finished the round: finish the minibatch at hand, then report.
 */
export interface StopTraining__Output {
  'generation': (number);
  'step': (number);
}
