// Original file: proto/troupe/v1/membership.proto

import type { VotedUpdate as _troupe_v1_VotedUpdate, VotedUpdate__Output as _troupe_v1_VotedUpdate__Output } from '../../troupe/v1/VotedUpdate.js';

/**
 * Where a learner's parameters stand.
 */
export interface LearnerPosition {
  'stage'?: (string);
  /**
   * Last optimizer step applied in that stage.
   */
  'step'?: (number);
  /**
   * Digest of the history that led there (src/learner/state-digest.ts), hex.
   */
  'digest'?: (string);
  /**
   * The update of step + 1 that it voted for without hearing what became of it, and still holds; unset = none.
   */
  'voted'?: (_troupe_v1_VotedUpdate | null);
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
  /**
   * Digest of the history that led there (src/learner/state-digest.ts), hex.
   */
  'digest': (string);
  /**
   * The update of step + 1 that it voted for without hearing what became of it, and still holds; unset = none.
   */
  'voted': (_troupe_v1_VotedUpdate__Output | null);
}
