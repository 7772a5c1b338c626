// Original file: proto/troupe/v1/artifact.proto

import type { Sender as _troupe_v1_Sender, Sender__Output as _troupe_v1_Sender__Output } from '../../troupe/v1/Sender.js';

export interface FetchRequest {
  'sender'?: (_troupe_v1_Sender | null);
  'name'?: (string);
}

export interface FetchRequest__Output {
  'sender': (_troupe_v1_Sender__Output | null);
  'name': (string);
}
