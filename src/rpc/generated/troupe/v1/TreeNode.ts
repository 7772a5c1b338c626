// Original file: proto/troupe/v1/learner.proto


/**
 * A node of the fixed pairwise tree over the micro-shards: level 0 are single shards, a node at level l covers
 * shards [index·2^l, (index+1)·2^l).
 */
export interface TreeNode {
  'level'?: (number);
  'index'?: (number);
}

/**
 * A node of the fixed pairwise tree over the micro-shards: level 0 are single shards, a node at level l covers
 * shards [index·2^l, (index+1)·2^l).
 */
export interface TreeNode__Output {
  'level': (number);
  'index': (number);
}
