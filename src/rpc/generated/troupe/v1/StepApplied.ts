// Original file: proto/troupe/v1/learner.proto


export interface StepApplied {
  'step'?: (number);
  /**
   * Gradient norm before clipping, by model role.
   */
  'gradientNorms'?: ({[key: string]: number | string});
  'stage'?: (string);
}

export interface StepApplied__Output {
  'step': (number);
  /**
   * Gradient norm before clipping, by model role.
   */
  'gradientNorms': ({[key: string]: number});
  'stage': (string);
}
