// Original file: proto/troupe/v1/rollout.proto


export interface Sampling {
  'seed'?: (number);
  'temperature'?: (number | string);
  'topK'?: (number);
  'topP'?: (number | string);
  'minNewTokens'?: (number);
  'maxNewTokens'?: (number);
  'repetitionPenalty'?: (number | string);
  'greedy'?: (boolean);
}

export interface Sampling__Output {
  'seed': (number);
  'temperature': (number);
  'topK': (number);
  'topP': (number);
  'minNewTokens': (number);
  'maxNewTokens': (number);
  'repetitionPenalty': (number);
  'greedy': (boolean);
}
