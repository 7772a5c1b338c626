// Original file: proto/troupe/v1/learner.proto

import type { ModelRef as _troupe_v1_ModelRef, ModelRef__Output as _troupe_v1_ModelRef__Output } from '../../troupe/v1/ModelRef.js';
import type { TokenizerInfo as _troupe_v1_TokenizerInfo, TokenizerInfo__Output as _troupe_v1_TokenizerInfo__Output } from '../../troupe/v1/TokenizerInfo.js';
import type { ArtifactRef as _troupe_v1_ArtifactRef, ArtifactRef__Output as _troupe_v1_ArtifactRef__Output } from '../../troupe/v1/ArtifactRef.js';
import type { RunShape as _troupe_v1_RunShape, RunShape__Output as _troupe_v1_RunShape__Output } from '../../troupe/v1/RunShape.js';

/**
 * Load models and optimizer settings of a stage.
 */
export interface SetupStage {
  'stage'?: (string);
  'models'?: (_troupe_v1_ModelRef)[];
  'tokenizer'?: (_troupe_v1_TokenizerInfo | null);
  /**
   * Full training state to continue from (checkpoint, or a peer's state when joining late); unset = step 0.
   */
  'state'?: (_troupe_v1_ArtifactRef | null);
  /**
   * The optimizer step that state stands after.
   */
  'appliedStep'?: (number);
  'healId'?: (number);
  /**
   * Of program runs, the same for every learner; none: each micro-shard has a shape that suits it.
   */
  'runShapes'?: (_troupe_v1_RunShape)[];
}

/**
 * Load models and optimizer settings of a stage.
 */
export interface SetupStage__Output {
  'stage': (string);
  'models': (_troupe_v1_ModelRef__Output)[];
  'tokenizer': (_troupe_v1_TokenizerInfo__Output | null);
  /**
   * Full training state to continue from (checkpoint, or a peer's state when joining late); unset = step 0.
   */
  'state': (_troupe_v1_ArtifactRef__Output | null);
  /**
   * The optimizer step that state stands after.
   */
  'appliedStep': (number);
  'healId': (number);
  /**
   * Of program runs, the same for every learner; none: each micro-shard has a shape that suits it.
   */
  'runShapes': (_troupe_v1_RunShape__Output)[];
}
