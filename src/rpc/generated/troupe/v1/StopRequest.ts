// Original file: proto/troupe/v1/control.proto


export interface StopRequest {
  'reason'?: (string);
}

export interface StopRequest__Output {
  'reason': (string);
}
