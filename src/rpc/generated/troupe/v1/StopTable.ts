// Original file: proto/troupe/v1/rollout.proto


/**
 * Stop strings as an automaton over token ids: S states, of which 0 is the start and S - 1 ends the answer, and C
 * classes of tokens. See src/data/stop-table.ts.
 */
export interface StopTable {
  'states'?: (number);
  /**
   * int32[C * S]: the state after a token of class c in state s, at c * S + s
   */
  'next'?: (Buffer | Uint8Array | string);
  /**
   * int32[N]: tokens that are not of class 0
   */
  'tokenIds'?: (Buffer | Uint8Array | string);
  /**
   * int32[N]: their classes
   */
  'classes'?: (Buffer | Uint8Array | string);
}

/**
 * Stop strings as an automaton over token ids: S states, of which 0 is the start and S - 1 ends the answer, and C
 * classes of tokens. See src/data/stop-table.ts.
 */
export interface StopTable__Output {
  'states': (number);
  /**
   * int32[C * S]: the state after a token of class c in state s, at c * S + s
   */
  'next': (Buffer);
  /**
   * int32[N]: tokens that are not of class 0
   */
  'tokenIds': (Buffer);
  /**
   * int32[N]: their classes
   */
  'classes': (Buffer);
}
