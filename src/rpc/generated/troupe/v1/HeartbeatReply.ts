// Original file: proto/troupe/v1/membership.proto


// Original file: proto/troupe/v1/membership.proto

export const _troupe_v1_HeartbeatReply_Directive = {
  DIRECTIVE_UNSPECIFIED: 'DIRECTIVE_UNSPECIFIED',
  CONTINUE: 'CONTINUE',
  /**
   * Finish or hand back what is held, then leave (scale-down, rolling restart, end of run).
   */
  DRAIN: 'DRAIN',
  /**
   * Another incarnation took this name, or the lease ended: stop and register again.
   */
  REGISTER_AGAIN: 'REGISTER_AGAIN',
} as const;

export type _troupe_v1_HeartbeatReply_Directive =
  | 'DIRECTIVE_UNSPECIFIED'
  | 0
  | 'CONTINUE'
  | 1
  /**
   * Finish or hand back what is held, then leave (scale-down, rolling restart, end of run).
   */
  | 'DRAIN'
  | 2
  /**
   * Another incarnation took this name, or the lease ended: stop and register again.
   */
  | 'REGISTER_AGAIN'
  | 3

export type _troupe_v1_HeartbeatReply_Directive__Output = typeof _troupe_v1_HeartbeatReply_Directive[keyof typeof _troupe_v1_HeartbeatReply_Directive]

export interface HeartbeatReply {
  'directive'?: (_troupe_v1_HeartbeatReply_Directive);
  /**
   * Others may leave for it: it may be given work. A learner then holds the state that the next step starts from, or no
   * stage is open.
   */
  'ready'?: (boolean);
}

export interface HeartbeatReply__Output {
  'directive': (_troupe_v1_HeartbeatReply_Directive__Output);
  /**
   * Others may leave for it: it may be given work. A learner then holds the state that the next step starts from, or no
   * stage is open.
   */
  'ready': (boolean);
}
