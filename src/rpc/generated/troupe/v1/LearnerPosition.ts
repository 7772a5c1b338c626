// Original file: proto/troupe/v1/membership.proto


/**
 * Where a learner's parameters stand.
 */
export interface LearnerPosition {
  'stage'?: (string);
  /**
   * Last optimizer step applied in that stage.
   */
  'step'?: (number);
}

/**
 * Where a learner's parameters stand.
 */
export interface LearnerPosition__Output {
  'stage': (string);
  /**
   * Last optimizer step applied in that stage.
   */
  'step': (number);
}
