// Original file: proto/troupe/v1/control.proto


export interface WorkerStatus {
  'workerId'?: (string);
  'role'?: (string);
  'state'?: (string);
  'host'?: (string);
  'pid'?: (number);
  'metricsAddress'?: (string);
}

export interface WorkerStatus__Output {
  'workerId': (string);
  'role': (string);
  'state': (string);
  'host': (string);
  'pid': (number);
  'metricsAddress': (string);
}
