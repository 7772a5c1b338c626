// Original file: proto/troupe/v1/control.proto


export interface StopReply {
}

export interface StopReply__Output {
}
