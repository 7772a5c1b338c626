// Original file: proto/troupe/v1/learner.proto


export interface ShardStats {
  /**
   * In a round: counted on over its minibatches.
   */
  'shard'?: (number);
  /**
   * Sums over the shard's tokens or rows, by metric name; the coordinator adds them in shard order.
   */
  'sums'?: ({[key: string]: number | string});
}

export interface ShardStats__Output {
  /**
   * In a round: counted on over its minibatches.
   */
  'shard': (number);
  /**
   * Sums over the shard's tokens or rows, by metric name; the coordinator adds them in shard order.
   */
  'sums': ({[key: string]: number});
}
