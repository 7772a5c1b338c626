// Original file: proto/troupe/v1/learner.proto


export interface LanguageRows {
  /**
   * uint32[rows]
   */
  'lengths'?: (Buffer | Uint8Array | string);
  /**
   * int32[sum(lengths)]
   */
  'ids'?: (Buffer | Uint8Array | string);
  /**
   * uint8[sum(lengths)], 1 = this token is a training target
   */
  'lossMask'?: (Buffer | Uint8Array | string);
}

export interface LanguageRows__Output {
  /**
   * uint32[rows]
   */
  'lengths': (Buffer);
  /**
   * int32[sum(lengths)]
   */
  'ids': (Buffer);
  /**
   * uint8[sum(lengths)], 1 = this token is a training target
   */
  'lossMask': (Buffer);
}
