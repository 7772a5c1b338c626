// Original file: proto/troupe/v1/control.proto


export interface StatusRequest {
}

export interface StatusRequest__Output {
}
