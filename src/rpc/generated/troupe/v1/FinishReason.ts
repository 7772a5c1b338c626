// Original file: proto/troupe/v1/rollout.proto

export const FinishReason = {
  FINISH_REASON_UNSPECIFIED: 'FINISH_REASON_UNSPECIFIED',
  EOS: 'EOS',
  STOP: 'STOP',
  LENGTH: 'LENGTH',
} as const;

export type FinishReason =
  | 'FINISH_REASON_UNSPECIFIED'
  | 0
  | 'EOS'
  | 1
  | 'STOP'
  | 2
  | 'LENGTH'
  | 3

export type FinishReason__Output = typeof FinishReason[keyof typeof FinishReason]
