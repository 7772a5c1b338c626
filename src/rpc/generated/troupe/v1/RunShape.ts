// Original file: proto/troupe/v1/learner.proto


/**
 * What a gradient program is compiled for.
 */
export interface RunShape {
  /**
   * A power of two. Of pairs: of chosen answers, and as many of rejected ones.
   */
  'rows'?: (number);
  /**
   * Tokens of a row.
   */
  'length'?: (number);
  /**
   * Tokens that the loss counts, or pairs, rounded up.
   */
  'listed'?: (number);
}

/**
 * What a gradient program is compiled for.
 */
export interface RunShape__Output {
  /**
   * A power of two. Of pairs: of chosen answers, and as many of rejected ones.
   */
  'rows': (number);
  /**
   * Tokens of a row.
   */
  'length': (number);
  /**
   * Tokens that the loss counts, or pairs, rounded up.
   */
  'listed': (number);
}
