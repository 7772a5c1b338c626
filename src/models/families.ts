import { gpt2 } from "./gpt2.js";
import type { HfConfig } from "./hf-config.js";
import { llama } from "./llama.js";
import type { FamilyName, Head, ModelSpec } from "./model-spec.js";
import { opt } from "./opt.js";
import type { TensorPlan } from "./tensor-plan.js";

/**
 * One decoder architecture (or several that differ by config only): its config and its tensors. Its arithmetic is in
 * decoders.ts, so that who only asks for shapes loads no tensor library.
 */
export interface DecoderFamily {
  /** Values of `model_type` it reads. */
  readonly names: readonly FamilyName[];
  /** Name of the backbone inside a checkpoint, with its dot: files of bare backbones lack it. */
  readonly prefix: string;
  /** Buffers that old checkpoints carry and no model needs. */
  readonly ignoredTensors: RegExp;
  /** Name of the token embedding, which a tied language-model head shares. */
  readonly embeddingName: string;
  parseConfig(config: HfConfig, name: FamilyName, head: Head): ModelSpec;
  /** The family's own fields of config.json; common ones are written by `toHfConfig`. */
  toConfig(spec: ModelSpec): Record<string, unknown>;
  /** transformers' class name for the spec. */
  architecture(spec: ModelSpec): string;
  /** Backbone tensors (no head). */
  tensorPlans(spec: ModelSpec): Record<string, TensorPlan>;
}

export const FAMILIES: readonly DecoderFamily[] = [gpt2, opt, llama];

export function familyOf(spec: ModelSpec): DecoderFamily {
  return FAMILIES.find((family) => family.names.includes(spec.family))!;
}
