/** How much memory each role of a run needs, from the size of its model. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Config } from "../config/schema.js";
import { freshGpt2Spec, layoutOf, parseModelConfig, type ModelSpec } from "../models/model-spec.js";
import { cacheLayout } from "../models/forward-pass.js";

export interface MemoryEstimate {
  readonly parameters: number;
  readonly learnerBytes: number;
  readonly rolloutBytes: number;
}

const FLOAT_BYTES = 4;
/** Node, its libraries and compiled programs. A learner of a 17 k parameter model peaked at 221 MiB, a rollout worker at 177. */
const BASE_BYTES = 250 * 2 ** 20;
/** Parameters, gradients, two moments. */
const TRAINED_COPIES = 4;

/**
 * Parameters and caches only; activations come on top and depend on the batch.
 *
 *   learner = base + (actor + critic) · 4 copies        rollout = base + 4 models + KV cache
 */
export async function estimateMemory({ model, generation, data }: Config): Promise<MemoryEstimate> {
  const spec = model.path === null ? freshSpec(model) : await specOf(model.path);
  const parameters = layoutOf(spec).size;
  const cacheTokens = Math.min(spec.contextTokens, data.maxPromptTokens + generation.maxNewTokens);
  const cacheSize = cacheLayout(spec, generation.slots, cacheTokens).size;
  return {
    parameters,
    learnerBytes: BASE_BYTES + 2 * TRAINED_COPIES * parameters * FLOAT_BYTES,
    rolloutBytes: BASE_BYTES + (4 * parameters + cacheSize) * FLOAT_BYTES,
  };
}

function freshSpec({ fresh, tokenizer }: Config["model"]): ModelSpec {
  const { layers, hidden, heads, contextTokens } = fresh;
  // A tokenizer that is not read here: the largest part of a small model, so better too much than too little.
  const vocabularySize = tokenizer.type === "train" ? tokenizer.vocabularySize : 50_257;
  return freshGpt2Spec({
    head: "lm",
    layers,
    hidden,
    heads,
    contextTokens,
    vocabularySize,
    eosTokenId: 0,
    padTokenId: 1,
  });
}

const specOf = async (path: string): Promise<ModelSpec> =>
  parseModelConfig(JSON.parse(await readFile(join(path, "config.json"), "utf8")), "lm");
