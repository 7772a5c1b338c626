// Original file: proto/troupe/v1/learner.proto


/**
 * First message of every stream: what this learner holds, so that a reconnect need not start over.
 */
export interface Hello {
  /**
   * Stage whose state it holds; empty for a fresh process.
   */
  'stage'?: (string);
  /**
   * Last optimizer step it applied in that stage.
   */
  'appliedStep'?: (number);
}

/**
 * First message of every stream: what this learner holds, so that a reconnect need not start over.
 */
export interface Hello__Output {
  /**
   * Stage whose state it holds; empty for a fresh process.
   */
  'stage': (string);
  /**
   * Last optimizer step it applied in that stage.
   */
  'appliedStep': (number);
}
