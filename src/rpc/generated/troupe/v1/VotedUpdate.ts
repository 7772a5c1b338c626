// Original file: proto/troupe/v1/membership.proto


export interface VotedUpdate {
  'step'?: (number);
  /**
   * Digest of the state after it, as voted.
   */
  'digest'?: (string);
}

export interface VotedUpdate__Output {
  'step': (number);
  /**
   * Digest of the state after it, as voted.
   */
  'digest': (string);
}
