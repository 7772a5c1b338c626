// Original file: proto/troupe/v1/learner.proto


export interface LearnerFailure {
  'errorCode'?: (string);
  'message'?: (string);
}

export interface LearnerFailure__Output {
  'errorCode': (string);
  'message': (string);
}
