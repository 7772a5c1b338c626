// Original file: proto/troupe/v1/learner.proto


export interface AbortStep {
  'generation'?: (number);
  'step'?: (number);
  'reason'?: (string);
}

export interface AbortStep__Output {
  'generation': (number);
  'step': (number);
  'reason': (string);
}
