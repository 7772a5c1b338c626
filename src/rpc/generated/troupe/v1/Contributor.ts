// Original file: proto/troupe/v1/learner.proto


export interface Contributor {
  'workerId'?: (string);
  'firstShard'?: (number);
  'shardCount'?: (number);
}

export interface Contributor__Output {
  'workerId': (string);
  'firstShard': (number);
  'shardCount': (number);
}
