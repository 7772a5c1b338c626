// Original file: proto/troupe/v1/learner.proto


/**
 * The step asked for does not follow the last one applied: this learner needs a peer's state first.
 */
export interface LearnerBehind {
  'generation'?: (number);
  'appliedStep'?: (number);
}

/**
 * The step asked for does not follow the last one applied: this learner needs a peer's state first.
 */
export interface LearnerBehind__Output {
  'generation': (number);
  'appliedStep': (number);
}
