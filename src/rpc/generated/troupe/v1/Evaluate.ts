// Original file: proto/troupe/v1/learner.proto

import type { Shard as _troupe_v1_Shard, Shard__Output as _troupe_v1_Shard__Output } from '../../troupe/v1/Shard.js';

export interface Evaluate {
  'shards'?: (_troupe_v1_Shard)[];
}

export interface Evaluate__Output {
  'shards': (_troupe_v1_Shard__Output)[];
}
