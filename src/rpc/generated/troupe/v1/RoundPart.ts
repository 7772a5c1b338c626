// Original file: proto/troupe/v1/learner.proto


/**
 * The place of a minibatch in its round.
 */
export interface RoundPart {
  /**
   * From 0; they come in order.
   */
  'index'?: (number);
  /**
   * Minibatches of the round.
   */
  'count'?: (number);
  /**
   * Number of this minibatch's optimizer step since the stage began, from 1.
   */
  'optimizerStep'?: (number);
}

/**
 * The place of a minibatch in its round.
 */
export interface RoundPart__Output {
  /**
   * From 0; they come in order.
   */
  'index': (number);
  /**
   * Minibatches of the round.
   */
  'count': (number);
  /**
   * Number of this minibatch's optimizer step since the stage began, from 1.
   */
  'optimizerStep': (number);
}
