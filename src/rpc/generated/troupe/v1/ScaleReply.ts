// Original file: proto/troupe/v1/control.proto


export interface ScaleReply {
  'desired'?: ({[key: string]: number});
}

export interface ScaleReply__Output {
  'desired': ({[key: string]: number});
}
