// Original file: proto/troupe/v1/learner.proto

import type { Shard as _troupe_v1_Shard, Shard__Output as _troupe_v1_Shard__Output } from '../../troupe/v1/Shard.js';
import type { RoundPart as _troupe_v1_RoundPart, RoundPart__Output as _troupe_v1_RoundPart__Output } from '../../troupe/v1/RoundPart.js';
import type { Exchange as _troupe_v1_Exchange, Exchange__Output as _troupe_v1_Exchange__Output } from '../../troupe/v1/Exchange.js';

export interface TrainStep {
  'generation'?: (number);
  'step'?: (number);
  /**
   * Micro-shards of the minibatch this learner computes: the contiguous range [first_shard, first_shard + shards).
   */
  'firstShard'?: (number);
  'shards'?: (_troupe_v1_Shard)[];
  /**
   * All micro-shards of the minibatch, over all learners; a power of two.
   */
  'shardCount'?: (number);
  'memberCount'?: (number);
  /**
   * Counted tokens (ppo, sft) or pairs (reward) of the whole minibatch: the denominator of the loss.
   */
  'denominator'?: (number | string);
  /**
   * Same for the ptx rows; 0 without.
   */
  'ptxDenominator'?: (number | string);
  /**
   * Learning rate by model role, for this step.
   */
  'learningRates'?: ({[key: string]: number | string});
  'stage'?: (string);
  /**
   * Unset: gradients are summed over all learners.
   */
  'round'?: (_troupe_v1_RoundPart | null);
  /**
   * StepRows messages with the rows that `shards` goes on from.
   */
  'rowsBefore'?: (number);
  /**
   * How long the coordinator waits for the step (of a round: for its training), milliseconds; then it gives it up and
   * tells so. A learner waits as long for a sum.
   */
  'timeLimitMs'?: (number);
  /**
   * How the gradients travel; unset = the AllReduce call.
   */
  'exchange'?: (_troupe_v1_Exchange | null);
}

export interface TrainStep__Output {
  'generation': (number);
  'step': (number);
  /**
   * Micro-shards of the minibatch this learner computes: the contiguous range [first_shard, first_shard + shards).
   */
  'firstShard': (number);
  'shards': (_troupe_v1_Shard__Output)[];
  /**
   * All micro-shards of the minibatch, over all learners; a power of two.
   */
  'shardCount': (number);
  'memberCount': (number);
  /**
   * Counted tokens (ppo, sft) or pairs (reward) of the whole minibatch: the denominator of the loss.
   */
  'denominator': (number);
  /**
   * Same for the ptx rows; 0 without.
   */
  'ptxDenominator': (number);
  /**
   * Learning rate by model role, for this step.
   */
  'learningRates': ({[key: string]: number});
  'stage': (string);
  /**
   * Unset: gradients are summed over all learners.
   */
  'round': (_troupe_v1_RoundPart__Output | null);
  /**
   * StepRows messages with the rows that `shards` goes on from.
   */
  'rowsBefore': (number);
  /**
   * How long the coordinator waits for the step (of a round: for its training), milliseconds; then it gives it up and
   * tells so. A learner waits as long for a sum.
   */
  'timeLimitMs': (number);
  /**
   * How the gradients travel; unset = the AllReduce call.
   */
  'exchange': (_troupe_v1_Exchange__Output | null);
}
