// Original file: proto/troupe/v1/learner.proto

import type { Reducer as _troupe_v1_Reducer, Reducer__Output as _troupe_v1_Reducer__Output } from '../../troupe/v1/Reducer.js';
import type { Contributor as _troupe_v1_Contributor, Contributor__Output as _troupe_v1_Contributor__Output } from '../../troupe/v1/Contributor.js';

/**
 * The bulk channel of one generation: plain TCP, or TLS 1.3 with `secret` as pre-shared key, instead of the AllReduce
 * call. Same buckets, same sums; frames in src/reduce/bulk-frame.ts.
 */
export interface Exchange {
  /**
   * Who sums what: equal contiguous shares of the buckets, in this order.
   */
  'reducers'?: (_troupe_v1_Reducer)[];
  /**
   * Shown when a step is opened; only members have it.
   */
  'secret'?: (Buffer | Uint8Array | string);
  'isEncrypted'?: (boolean);
  /**
   * Who contributes what; reducers check it.
   */
  'contributors'?: (_troupe_v1_Contributor)[];
}

/**
 * The bulk channel of one generation: plain TCP, or TLS 1.3 with `secret` as pre-shared key, instead of the AllReduce
 * call. Same buckets, same sums; frames in src/reduce/bulk-frame.ts.
 */
export interface Exchange__Output {
  /**
   * Who sums what: equal contiguous shares of the buckets, in this order.
   */
  'reducers': (_troupe_v1_Reducer__Output)[];
  /**
   * Shown when a step is opened; only members have it.
   */
  'secret': (Buffer);
  'isEncrypted': (boolean);
  /**
   * Who contributes what; reducers check it.
   */
  'contributors': (_troupe_v1_Contributor__Output)[];
}
