// Original file: proto/troupe/v1/control.proto

import type { Long } from '@grpc/proto-loader';

/**
 * admitted = trained + dropped + buffered, always.
 */
export interface Ledger {
  'admitted'?: (number | string | Long);
  'trained'?: (number | string | Long);
  'dropped'?: (number | string | Long);
  'buffered'?: (number | string | Long);
  'droppedByReason'?: ({[key: string]: number | string | Long});
  /**
   * Refused before admission, by reason ("duplicate", "stale", ...); not part of the balance.
   */
  'refusedByReason'?: ({[key: string]: number | string | Long});
  /**
   * Asked for, neither admitted nor given up yet; not part of the balance.
   */
  'inFlight'?: (number | string | Long);
  /**
   * Trained ones, by how many versions the policy was ahead of the one that sampled them.
   */
  'trainedByStaleness'?: ({[key: string]: number | string | Long});
}

/**
 * admitted = trained + dropped + buffered, always.
 */
export interface Ledger__Output {
  'admitted': (number);
  'trained': (number);
  'dropped': (number);
  'buffered': (number);
  'droppedByReason': ({[key: string]: number});
  /**
   * Refused before admission, by reason ("duplicate", "stale", ...); not part of the balance.
   */
  'refusedByReason': ({[key: string]: number});
  /**
   * Asked for, neither admitted nor given up yet; not part of the balance.
   */
  'inFlight': (number);
  /**
   * Trained ones, by how many versions the policy was ahead of the one that sampled them.
   */
  'trainedByStaleness': ({[key: string]: number});
}
