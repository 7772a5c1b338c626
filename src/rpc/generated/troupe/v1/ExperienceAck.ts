// Original file: proto/troupe/v1/rollout.proto


export interface ExperienceAck {
  'experienceId'?: (string);
  /**
   * "admitted", "duplicate", "stale", ... (src/coordinator/core); admitted means durable. "evaluation": it has arrived,
   * and counts once its whole task is done.
   */
  'outcome'?: (string);
}

export interface ExperienceAck__Output {
  'experienceId': (string);
  /**
   * "admitted", "duplicate", "stale", ... (src/coordinator/core); admitted means durable. "evaluation": it has arrived,
   * and counts once its whole task is done.
   */
  'outcome': (string);
}
