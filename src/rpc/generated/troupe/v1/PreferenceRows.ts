// Original file: proto/troupe/v1/learner.proto


export interface PreferenceRows {
  /**
   * uint32[pairs]
   */
  'chosenLengths'?: (Buffer | Uint8Array | string);
  /**
   * int32[sum]
   */
  'chosenIds'?: (Buffer | Uint8Array | string);
  'rejectedLengths'?: (Buffer | Uint8Array | string);
  'rejectedIds'?: (Buffer | Uint8Array | string);
  /**
   * uint32[pairs], shared prompt tokens of each pair
   */
  'promptLengths'?: (Buffer | Uint8Array | string);
}

export interface PreferenceRows__Output {
  /**
   * uint32[pairs]
   */
  'chosenLengths': (Buffer);
  /**
   * int32[sum]
   */
  'chosenIds': (Buffer);
  'rejectedLengths': (Buffer);
  'rejectedIds': (Buffer);
  /**
   * uint32[pairs], shared prompt tokens of each pair
   */
  'promptLengths': (Buffer);
}
