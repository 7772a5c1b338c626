// Original file: proto/troupe/v1/learner.proto


export interface ShardStats {
  /**
   * In a round: of its first minibatch; counted on, those of all later ones together.
   */
  'shard'?: (number);
  /**
   * Sums over the shard's tokens or rows, by metric name; the coordinator adds them in shard order.
   */
  'sums'?: ({[key: string]: number | string});
}

export interface ShardStats__Output {
  /**
   * In a round: of its first minibatch; counted on, those of all later ones together.
   */
  'shard': (number);
  /**
   * Sums over the shard's tokens or rows, by metric name; the coordinator adds them in shard order.
   */
  'sums': ({[key: string]: number});
}
