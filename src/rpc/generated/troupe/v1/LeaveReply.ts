// Original file: proto/troupe/v1/membership.proto


export interface LeaveReply {
}

export interface LeaveReply__Output {
}
