import { makeLayout, type Layout } from "../engine/layout.js";
import type { ModelSpec } from "./model-spec.js";

/** Cached heads are zero-padded to a multiple of this width, which fused decode attention needs. */
const CACHE_WIDTH_MULTIPLE = 8;

/** The key/value cache of a generator: per layer, `slots` sequences of up to `tokens` tokens. */
export function cacheLayout(spec: ModelSpec, slots: number, tokens: number): Layout {
  const width = Math.ceil(spec.headSize / CACHE_WIDTH_MULTIPLE) * CACHE_WIDTH_MULTIPLE;
  const shape = [slots, spec.kvHeads, tokens, width];
  const shapes: Record<string, readonly number[]> = {};
  for (let layer = 0; layer < spec.layers; layer++) {
    shapes[cacheName(layer, "k")] = shape;
    shapes[cacheName(layer, "v")] = shape;
  }
  return makeLayout(shapes);
}

export const cacheName = (layer: number, part: "k" | "v"): string => `${layer}.${part}`;
