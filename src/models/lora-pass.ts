import * as tf from "@tensorflow/tfjs";
import type { Tensor } from "@tensorflow/tfjs";
import type { Tensors } from "../engine/engine.js";
import { linear } from "../engine/ops.js";
import type { ForwardPass } from "./forward-pass.js";
import { dropoutScale, type AdapterDropout } from "./lora-dropout.js";
import { adapterName } from "./lora.js";
import type { ModelSpec } from "./model-spec.js";

/**
 * A pass whose linear maps add the product of their adapters; the same pass for a spec without any. Architectures
 * need not know: an adapter is found by the weight tensor that they hand to `linear`.
 * @param params  base and adapter tensors by name
 * @param dropout of the adapters' inputs; its keys stand in the order of the rows that `linear` gets
 */
export function withAdapters<P extends ForwardPass>(
  pass: P,
  spec: ModelSpec,
  params: Tensors,
  dropout: AdapterDropout | null = null,
): P {
  const { lora } = spec;
  if (lora === undefined) return pass;
  const moduleOf = new Map(lora.modules.map((module) => [params[`${module}.weight`], module]));
  const scale = lora.alpha / lora.rank;
  const adaptedLinear: ForwardPass["linear"] = (x, w, bias, options) => {
    const y = pass.linear(x, w, bias, options);
    const module = moduleOf.get(w);
    if (module === undefined) return y;
    // As right operand even of the few rows of a decode step, where large matrices stand left: these are thin, and so a
    // row has the same bits among any number of others.
    const apply = (of: Tensor, part: "A" | "B") =>
      linear(of, params[adapterName(module, part)], null, { weightIsOutIn: true });
    const input = dropout === null ? x : tf.mul(x, dropoutScale(dropout, module, x.shape[1]!));
    return tf.add(y, apply(tf.mul(apply(input, "A"), scale), "B"));
  };
  return { ...pass, linear: adaptedLinear };
}
