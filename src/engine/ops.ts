/**
 * The ops that models are written with, beside plain tfjs. Each is one fused piece of graph under the onnx engine
 * and ordinary tfjs kernels under the eager engines, with the same values and gradients (the conformance suite
 * compares them). Rows are left-aligned and right-padded sequences, or several sequences end to end (`sequenceMask`).
 */
export { layerNorm, rmsNorm } from "./ops/norm.js";
export { linear, smallLinear, type LinearOptions } from "./ops/linear.js";
export { biasActivation, type ActivationKind } from "./ops/activation.js";
export { segment, type SegmentOptions } from "./ops/segment.js";
export { embedding } from "./ops/embedding.js";
export { causalAttention, qkvAttention, sequenceMask, type AttentionOptions } from "./ops/attention.js";
export { headLogprobs, withoutGradient, type HeadLogprobs } from "./ops/head.js";
export { inverseFrequencies, rotaryEmbedding, rotaryTable, type RotaryTable } from "./ops/rotary.js";
export {
  cachedAttention,
  prefillAttention,
  type CachedAttention,
  type DecodeAttentionInputs,
  type PrefillAttentionInputs,
} from "./ops/cache.js";
