// Original file: proto/troupe/v1/rollout.proto


export interface Ready {
  'credits'?: (number);
}

export interface Ready__Output {
  'credits': (number);
}
