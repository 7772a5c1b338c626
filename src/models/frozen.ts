/** Models that are only read, held as int8 (see src/engine/frozen-weights.ts). */
import type { FrozenForm } from "../engine/frozen-weights.js";
import { familyOf } from "./families.js";
import { isConv1d, linearModules } from "./lora.js";
import { tensorPlans, type ModelSpec } from "./model-spec.js";

/**
 * Every matrix of the layers, the token embedding and the language-model head. Learned positions, norms, biases and the
 * scalar head stay float32: they are small, and the scalar head's error would be the score's.
 */
export function frozenForm(spec: ModelSpec): FrozenForm {
  const { embeddingName } = familyOf(spec);
  const plans = tensorPlans(spec);
  const heads = [embeddingName, "lm_head.weight"].filter((name) => name in plans);
  const modules = linearModules(spec).map(
    (module) => [`${module}.weight`, { isOutIn: !isConv1d(spec) }] as const,
  );
  return {
    matrices: Object.fromEntries([...modules, ...heads.map((name) => [name, { isOutIn: true }] as const)]),
  };
}
