// Original file: proto/troupe/v1/membership.proto

import type { Sender as _troupe_v1_Sender, Sender__Output as _troupe_v1_Sender__Output } from '../../troupe/v1/Sender.js';

export interface RegisterReply {
  'sender'?: (_troupe_v1_Sender | null);
  'heartbeatIntervalMs'?: (number);
  'leaseTtlMs'?: (number);
  /**
   * The run's resolved configuration (JSON of src/config/schema.ts); parsed by the worker with the same schema.
   */
  'configJson'?: (string);
}

export interface RegisterReply__Output {
  'sender': (_troupe_v1_Sender__Output | null);
  'heartbeatIntervalMs': (number);
  'leaseTtlMs': (number);
  /**
   * The run's resolved configuration (JSON of src/config/schema.ts); parsed by the worker with the same schema.
   */
  'configJson': (string);
}
