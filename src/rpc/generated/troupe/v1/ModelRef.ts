// Original file: proto/troupe/v1/common.proto

import type { ArtifactRef as _troupe_v1_ArtifactRef, ArtifactRef__Output as _troupe_v1_ArtifactRef__Output } from '../../troupe/v1/ArtifactRef.js';

/**
 * A model that workers load: a safetensors file the coordinator holds (see ArtifactService).
 */
export interface ModelRef {
  /**
   * "actor", "ref", "reward", "critic" or "model" (stages with one model).
   */
  'role'?: (string);
  /**
   * Text of the model's Hugging Face config.json.
   */
  'hfConfigJson'?: (string);
  /**
   * "lm" or "scalar".
   */
  'head'?: (string);
  /**
   * The parameters; unset means: initialise from init_seed.
   */
  'parameters'?: (_troupe_v1_ArtifactRef | null);
  /**
   * Seed for a fresh model, and for tensors a checkpoint lacks (a new scalar head).
   */
  'initSeed'?: (number);
  /**
   * Set for a model under adapters: the model that they sit on. `parameters` holds the adapters alone then, in PEFT's
   * format, and a scalar head.
   */
  'base'?: (_troupe_v1_ArtifactRef | null);
}

/**
 * A model that workers load: a safetensors file the coordinator holds (see ArtifactService).
 */
export interface ModelRef__Output {
  /**
   * "actor", "ref", "reward", "critic" or "model" (stages with one model).
   */
  'role': (string);
  /**
   * Text of the model's Hugging Face config.json.
   */
  'hfConfigJson': (string);
  /**
   * "lm" or "scalar".
   */
  'head': (string);
  /**
   * The parameters; unset means: initialise from init_seed.
   */
  'parameters': (_troupe_v1_ArtifactRef__Output | null);
  /**
   * Seed for a fresh model, and for tensors a checkpoint lacks (a new scalar head).
   */
  'initSeed': (number);
  /**
   * Set for a model under adapters: the model that they sit on. `parameters` holds the adapters alone then, in PEFT's
   * format, and a scalar head.
   */
  'base': (_troupe_v1_ArtifactRef__Output | null);
}
