// Original file: proto/troupe/v1/membership.proto

import type { Sender as _troupe_v1_Sender, Sender__Output as _troupe_v1_Sender__Output } from '../../troupe/v1/Sender.js';

export interface LeaveRequest {
  'sender'?: (_troupe_v1_Sender | null);
  /**
   * For the log: "drained", "signal", or an error text.
   */
  'reason'?: (string);
}

export interface LeaveRequest__Output {
  'sender': (_troupe_v1_Sender__Output | null);
  /**
   * For the log: "drained", "signal", or an error text.
   */
  'reason': (string);
}
