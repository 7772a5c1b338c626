// Original file: proto/troupe/v1/rollout.proto


export interface PromptRow {
  /**
   * "<iteration>/<prompt_index>/<sample_index>"; also the key of the random numbers that sample the answer.
   */
  'experienceId'?: (string);
  'promptIndex'?: (number);
  'sampleIndex'?: (number);
  /**
   * int32[P]
   */
  'promptIds'?: (Buffer | Uint8Array | string);
}

export interface PromptRow__Output {
  /**
   * "<iteration>/<prompt_index>/<sample_index>"; also the key of the random numbers that sample the answer.
   */
  'experienceId': (string);
  'promptIndex': (number);
  'sampleIndex': (number);
  /**
   * int32[P]
   */
  'promptIds': (Buffer);
}
