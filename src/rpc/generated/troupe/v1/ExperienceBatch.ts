// Original file: proto/troupe/v1/rollout.proto


/**
 * Finished experiences, of one task or of several. A worker keeps at most 4 MiB of them unacknowledged, or a single
 * larger one.
 */
export interface ExperienceBatch {
  /**
   * Each a serialised Experience. The coordinator journals the bytes as they are.
   */
  'experiences'?: (Buffer | Uint8Array | string)[];
}

/**
 * Finished experiences, of one task or of several. A worker keeps at most 4 MiB of them unacknowledged, or a single
 * larger one.
 */
export interface ExperienceBatch__Output {
  /**
   * Each a serialised Experience. The coordinator journals the bytes as they are.
   */
  'experiences': (Buffer)[];
}
