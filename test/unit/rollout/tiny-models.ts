import * as tf from "@tensorflow/tfjs";
import type { Arena, Engine, HostArrays, ProgramResult, Tensors } from "../../../src/engine/engine.js";
import { headWeight, hiddenStates, specKey } from "../../../src/models/forward.js";
import {
  freshGpt2Spec,
  initParams,
  layoutOf,
  type Head,
  type ModelSpec,
} from "../../../src/models/model-spec.js";
import { permutationOf, streamOf } from "../../../src/shared/rng.js";
import type { SamplingOptions } from "../../../src/rollout/sampling.js";

export const EOS = 1;

/** Two layers of 16 over 40 tokens; matrices large enough that distributions are far from uniform. */
export function tinySpec(head: Head = "lm"): ModelSpec {
  return freshGpt2Spec({
    head,
    layers: 2,
    hidden: 16,
    heads: 2,
    contextTokens: 64,
    vocabularySize: 40,
    eosTokenId: EOS,
    padTokenId: 0,
  });
}

export function tinyParams(spec: ModelSpec, seed: number): Float32Array {
  return initParams(spec, seed).map((value) => (value === 1 ? 1 : value * 12));
}

export function tinyArena(engine: Engine, spec: ModelSpec, seed: number): Arena {
  return engine.createArena(layoutOf(spec), tinyParams(spec, seed));
}

export const SAMPLING: SamplingOptions = {
  seed: 11,
  temperature: 1,
  topK: 0,
  topP: 1,
  minNewTokens: 0,
  maxNewTokens: 12,
  repetitionPenalty: 1,
  greedy: false,
};

/** Prompts of 1 to 20 tokens, none of them EOS. */
export function tinyPrompts(count: number): { key: string; promptIds: Int32Array }[] {
  return Array.from({ length: count }, (_, i) => ({
    key: `0/${i}/0`,
    promptIds: permutationOf(38, 5, streamOf(`prompt ${i}`))
      .slice(0, 1 + ((i * 7) % 20))
      .map((id) => id + 2),
  }));
}

/** Runs a function of one unpadded sequence: no batch, no padding, no cache. */
export async function runUnbatched(
  engine: Engine,
  spec: ModelSpec,
  params: Arena,
  ids: readonly number[],
  what: string,
  body: (params: Tensors, ids: tf.Tensor) => ProgramResult["outputs"],
): Promise<HostArrays> {
  const program = await engine.compile({
    key: `unbatched ${what} ${specKey(spec)} T${ids.length}`,
    arenas: { params: { layout: layoutOf(spec), access: "read" } },
    inputs: { ids: { shape: [1, ids.length], dtype: "int32" } },
    body: ({ params: tensors }, inputs) => ({ outputs: body(tensors, inputs.ids) }),
  });
  return program.run({ params }, { ids: Int32Array.from(ids) });
}

/** `[T, V]` logits of one sequence. */
export async function fullLogits(engine: Engine, spec: ModelSpec, params: Arena, ids: readonly number[]) {
  const { logits } = await runUnbatched(engine, spec, params, ids, "logits", (tensors, input) => ({
    logits: tf.matMul(hiddenStates(spec, tensors, input), headWeight(spec, tensors), false, true),
  }));
  return (position: number) =>
    logits.slice(position * spec.vocabularySize, (position + 1) * spec.vocabularySize);
}

/** log softmax(logits / temperature)[token] in float64. */
export function logSoftmaxAt(logits: ArrayLike<number>, temperature: number, token: number): number {
  const scores = Array.from(logits, (logit) => logit / temperature);
  const highest = Math.max(...scores);
  return (
    scores[token] - highest - Math.log(scores.reduce((sum, score) => sum + Math.exp(score - highest), 0))
  );
}
