import { freshGpt2Spec, toHfConfig, type Head, type ModelSpec } from "../../models/model-spec.js";
import type { ModelShape } from "./side.js";

export function benchSpec(shape: ModelShape, head: Head): ModelSpec {
  const { layers, hidden, heads, vocabulary, context } = shape;
  return freshGpt2Spec({
    head,
    layers,
    hidden,
    heads,
    contextTokens: context,
    vocabularySize: vocabulary,
    eosTokenId: 0,
    padTokenId: 1,
  });
}

export const benchConfigJson = (shape: ModelShape, head: Head): string =>
  JSON.stringify(toHfConfig(benchSpec(shape, head)));

/** The same pseudo-random token ids in [2, V) at every start. */
export function benchIds(count: number, vocabulary: number, seed = 1): Int32Array {
  let state = seed >>> 0;
  return Int32Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return 2 + (state % (vocabulary - 2));
  });
}

export const BENCH_OPTIMIZER = { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay: 0.01, clipNorm: 1 };

export const BENCH_PPO_HYPER = {
  cliprange: 0.2,
  cliprangeValue: 0.2,
  temperature: 1,
  ptxCoef: 0,
  emaDecay: null,
  lossDenominator: "global-tokens",
} as const;

/** Micro-shards that occupy the threads: one each as far as there are rows, a power of two. */
export const shardsFor = (threads: number, rows: number): number =>
  2 ** Math.floor(Math.log2(Math.min(threads, rows)));
