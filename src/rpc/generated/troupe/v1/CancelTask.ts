// Original file: proto/troupe/v1/rollout.proto


export interface CancelTask {
  'taskId'?: (string);
  'attempt'?: (number);
}

export interface CancelTask__Output {
  'taskId': (string);
  'attempt': (number);
}
