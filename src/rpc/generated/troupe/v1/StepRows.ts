// Original file: proto/troupe/v1/learner.proto

import type { Shard as _troupe_v1_Shard, Shard__Output as _troupe_v1_Shard__Output } from '../../troupe/v1/Shard.js';

/**
 * Rows that one message cannot hold come ahead of their TrainStep, in order. Shards that follow each other under one
 * index, over messages as well, are one micro-shard.
 */
export interface StepRows {
  'generation'?: (number);
  'step'?: (number);
  /**
   * RoundPart.index of the TrainStep; 0 without.
   */
  'part'?: (number);
  'shards'?: (_troupe_v1_Shard)[];
}

/**
 * Rows that one message cannot hold come ahead of their TrainStep, in order. Shards that follow each other under one
 * index, over messages as well, are one micro-shard.
 */
export interface StepRows__Output {
  'generation': (number);
  'step': (number);
  /**
   * RoundPart.index of the TrainStep; 0 without.
   */
  'part': (number);
  'shards': (_troupe_v1_Shard__Output)[];
}
