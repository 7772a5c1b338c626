// Original file: proto/troupe/v1/artifact.proto

import type { ArtifactRef as _troupe_v1_ArtifactRef, ArtifactRef__Output as _troupe_v1_ArtifactRef__Output } from '../../troupe/v1/ArtifactRef.js';

export interface PublishReply {
  'ref'?: (_troupe_v1_ArtifactRef | null);
}

export interface PublishReply__Output {
  'ref': (_troupe_v1_ArtifactRef__Output | null);
}
