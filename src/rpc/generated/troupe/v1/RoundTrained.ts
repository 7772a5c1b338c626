// Original file: proto/troupe/v1/learner.proto


/**
 * This learner has stopped training for the round; its parameters wait to be averaged.
 */
export interface RoundTrained {
  'generation'?: (number);
  'step'?: (number);
  /**
   * Micro-shards trained, each counted as 1 / shard_count of its minibatch.
   */
  'minibatches'?: (number | string);
  'computeMs'?: (number | string);
}

/**
 * This learner has stopped training for the round; its parameters wait to be averaged.
 */
export interface RoundTrained__Output {
  'generation': (number);
  'step': (number);
  /**
   * Micro-shards trained, each counted as 1 / shard_count of its minibatch.
   */
  'minibatches': (number);
  'computeMs': (number);
}
