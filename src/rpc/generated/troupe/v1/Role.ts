// Original file: proto/troupe/v1/common.proto

export const Role = {
  ROLE_UNSPECIFIED: 'ROLE_UNSPECIFIED',
  ROLE_ROLLOUT: 'ROLE_ROLLOUT',
  ROLE_LEARNER: 'ROLE_LEARNER',
} as const;

export type Role =
  | 'ROLE_UNSPECIFIED'
  | 0
  | 'ROLE_ROLLOUT'
  | 1
  | 'ROLE_LEARNER'
  | 2

export type Role__Output = typeof Role[keyof typeof Role]
