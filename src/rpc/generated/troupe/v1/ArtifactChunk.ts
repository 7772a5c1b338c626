// Original file: proto/troupe/v1/artifact.proto

import type { Sender as _troupe_v1_Sender, Sender__Output as _troupe_v1_Sender__Output } from '../../troupe/v1/Sender.js';
import type { ArtifactRef as _troupe_v1_ArtifactRef, ArtifactRef__Output as _troupe_v1_ArtifactRef__Output } from '../../troupe/v1/ArtifactRef.js';

export interface ArtifactChunk {
  /**
   * First chunk only.
   */
  'sender'?: (_troupe_v1_Sender | null);
  'ref'?: (_troupe_v1_ArtifactRef | null);
  /**
   * At most 1 MiB.
   */
  'data'?: (Buffer | Uint8Array | string);
}

export interface ArtifactChunk__Output {
  /**
   * First chunk only.
   */
  'sender': (_troupe_v1_Sender__Output | null);
  'ref': (_troupe_v1_ArtifactRef__Output | null);
  /**
   * At most 1 MiB.
   */
  'data': (Buffer);
}
