// Original file: proto/troupe/v1/learner.proto

import type { ArtifactRef as _troupe_v1_ArtifactRef, ArtifactRef__Output as _troupe_v1_ArtifactRef__Output } from '../../troupe/v1/ArtifactRef.js';

export interface PublishDone {
  'artifacts'?: (_troupe_v1_ArtifactRef)[];
  /**
   * Fingerprint of parameters and optimizer state of every trained model, in name order; empty unless asked for.
   */
  'stateSha256'?: (string);
}

export interface PublishDone__Output {
  'artifacts': (_troupe_v1_ArtifactRef__Output)[];
  /**
   * Fingerprint of parameters and optimizer state of every trained model, in name order; empty unless asked for.
   */
  'stateSha256': (string);
}
