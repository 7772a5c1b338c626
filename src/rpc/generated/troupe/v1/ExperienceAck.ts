// Original file: proto/troupe/v1/rollout.proto


/**
 * One verdict on every experience named.
 */
export interface ExperienceAck {
  'experienceIds'?: (string)[];
  /**
   * "admitted", "duplicate", "stale", ... (src/coordinator/core); admitted means durable. "evaluation": it has arrived,
   * and counts once its whole task is done.
   */
  'outcome'?: (string);
}

/**
 * One verdict on every experience named.
 */
export interface ExperienceAck__Output {
  'experienceIds': (string)[];
  /**
   * "admitted", "duplicate", "stale", ... (src/coordinator/core); admitted means durable. "evaluation": it has arrived,
   * and counts once its whole task is done.
   */
  'outcome': (string);
}
