// Original file: proto/troupe/v1/rollout.proto


export interface TaskFailed {
  'taskId'?: (string);
  'attempt'?: (number);
  'errorCode'?: (string);
  'message'?: (string);
}

export interface TaskFailed__Output {
  'taskId': (string);
  'attempt': (number);
  'errorCode': (string);
  'message': (string);
}
