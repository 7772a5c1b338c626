/** Small inputs shared by the tests of src/rl. */
import { normalAt, streamOf, uniformAt } from "../../../src/shared/rng.js";
import type { ScoredRollout } from "../../../src/rl/types.js";

/** `[n]` seeded normal numbers. */
export function normals(n: number, name: string, scale = 1): Float32Array {
  return Float32Array.from({ length: n }, (_, i) => scale * normalAt(7, streamOf(name), i));
}

export function uniforms(n: number, name: string): Float32Array {
  return Float32Array.from({ length: n }, (_, i) => uniformAt(7, streamOf(name), i));
}

/** A rollout of R tokens with random log-probs and values; override what a test is about. */
export function rollout(tokens: number, name: string, overrides: Partial<ScoredRollout> = {}): ScoredRollout {
  return {
    promptIndex: 0,
    sampleIndex: 0,
    experienceId: `0/0/${name}`,
    promptIds: Int32Array.of(5, 6),
    policyVersion: 0,
    responseIds: Int32Array.from({ length: tokens }, (_, i) => 10 + i),
    logprobs: normals(tokens, `${name}/logprobs`).map((x) => -Math.abs(x)),
    refLogprobs: normals(tokens, `${name}/ref`).map((x) => -Math.abs(x)),
    values: normals(tokens, `${name}/values`),
    score: normalAt(7, streamOf(`${name}/score`), 0),
    finishReason: "eos",
    ...overrides,
  };
}
