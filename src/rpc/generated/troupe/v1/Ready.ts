// Original file: proto/troupe/v1/rollout.proto


/**
 * A level, not an increment: repeating it is harmless.
 */
export interface Ready {
  'credits'?: (number);
}

/**
 * A level, not an increment: repeating it is harmless.
 */
export interface Ready__Output {
  'credits': (number);
}
