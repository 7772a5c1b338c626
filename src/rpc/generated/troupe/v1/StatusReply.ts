// Original file: proto/troupe/v1/control.proto

import type { WorkerStatus as _troupe_v1_WorkerStatus, WorkerStatus__Output as _troupe_v1_WorkerStatus__Output } from '../../troupe/v1/WorkerStatus.js';
import type { Ledger as _troupe_v1_Ledger, Ledger__Output as _troupe_v1_Ledger__Output } from '../../troupe/v1/Ledger.js';

export interface StatusReply {
  'runId'?: (string);
  'stage'?: (string);
  'epoch'?: (number);
  'iteration'?: (number);
  'optimizerStep'?: (number);
  'policyVersion'?: (number);
  'paused'?: (boolean);
  'workers'?: (_troupe_v1_WorkerStatus)[];
  'ledger'?: (_troupe_v1_Ledger | null);
  /**
   * Processes wanted, by role name.
   */
  'desired'?: ({[key: string]: number});
  'seconds'?: (number | string);
  /**
   * Newest iteration that experience is collected for; above `iteration` when it is collected ahead.
   */
  'collectingIteration'?: (number);
  /**
   * ppo.staleness: policy versions by which trained experience may be behind; 0 = synchronous.
   */
  'stalenessLimit'?: (number);
}

export interface StatusReply__Output {
  'runId': (string);
  'stage': (string);
  'epoch': (number);
  'iteration': (number);
  'optimizerStep': (number);
  'policyVersion': (number);
  'paused': (boolean);
  'workers': (_troupe_v1_WorkerStatus__Output)[];
  'ledger': (_troupe_v1_Ledger__Output | null);
  /**
   * Processes wanted, by role name.
   */
  'desired': ({[key: string]: number});
  'seconds': (number);
  /**
   * Newest iteration that experience is collected for; above `iteration` when it is collected ahead.
   */
  'collectingIteration': (number);
  /**
   * ppo.staleness: policy versions by which trained experience may be behind; 0 = synchronous.
   */
  'stalenessLimit': (number);
}
