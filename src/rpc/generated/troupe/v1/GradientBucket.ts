// Original file: proto/troupe/v1/learner.proto


export interface GradientBucket {
  /**
   * Position among the learner's nodes (upload); 0 (download).
   */
  'node'?: (number);
  /**
   * Bucket number within the gradient.
   */
  'bucket'?: (number);
  /**
   * float32[n] or, with wire bf16, the upper halves uint16[n].
   */
  'values'?: (Buffer | Uint8Array | string);
}

export interface GradientBucket__Output {
  /**
   * Position among the learner's nodes (upload); 0 (download).
   */
  'node': (number);
  /**
   * Bucket number within the gradient.
   */
  'bucket': (number);
  /**
   * float32[n] or, with wire bf16, the upper halves uint16[n].
   */
  'values': (Buffer);
}
