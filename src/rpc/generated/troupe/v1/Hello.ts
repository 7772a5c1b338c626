// Original file: proto/troupe/v1/learner.proto


/**
 * First message of every stream: binds the stream to its sender.
 */
export interface Hello {
  /**
   * Where this learner takes connections of other learners (cluster.allReduce: sharded); 0 = it does not.
   */
  'bulkPort'?: (number);
}

/**
 * First message of every stream: binds the stream to its sender.
 */
export interface Hello__Output {
  /**
   * Where this learner takes connections of other learners (cluster.allReduce: sharded); 0 = it does not.
   */
  'bulkPort': (number);
}
