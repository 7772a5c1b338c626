/**
 * Dropout on the input of adapters, from counters: every element's fate is a function of (seed, where its token stands,
 * module, feature), so any learner drops what any other would have.
 *
 * Token n of a run gets three random keys a, b, c below p = 1021, feature i of a module two constants f and g, and
 *
 *   h(n, i) = (a_n·f_i + b_n·g_i + c_n) mod p         kept where h ≥ rate · p, and divided by 1 − rate
 *
 * Over random keys h is uniform, and independent for any two features (Carter and Wegman's family over a prime field).
 * All of it is whole numbers below 2²⁴: float32 computes it exactly, in any order, on every engine.
 *
 * @see Hu et al. 2021, §4 (PEFT's lora_dropout); Carter and Wegman 1979, "Universal classes of hash functions"
 */
import * as tf from "@tensorflow/tfjs";
import type { Tensor } from "@tensorflow/tfjs";
import { streamOf, uniformAt } from "../shared/rng.js";

/** Largest prime below 1024: a sum of two products stays below 2²¹, where a quotient's floor is exact. */
const PRIME = 1021;
const KEYS = 3;

/** Of one program run. */
export interface AdapterDropout {
  /** Share of elements dropped, in (0, 1). */
  readonly rate: number;
  /** `[N, 3]`, see `tokenKeys`. */
  readonly keys: Tensor;
}

/**
 * Keys of `tokens` tokens, `[tokens, 3]` flat.
 * @param name of the place they stand at: stage, step, micro-shard and run
 */
export function tokenKeys(seed: number, name: string, tokens: number): Float32Array {
  const stream = streamOf(`lora-dropout/${name}`);
  return Float32Array.from({ length: tokens * KEYS }, (_, i) =>
    Math.floor(PRIME * uniformAt(seed, stream, i)),
  );
}

export const keyShape = (tokens: number): readonly number[] => [tokens, KEYS];

/** `[N, inputs]`: 0 where an element of the module's input is dropped, else 1 / (1 − rate). */
export function dropoutScale({ rate, keys }: AdapterDropout, module: string, inputs: number): Tensor {
  const hashed = tf.matMul(
    keys as tf.Tensor2D,
    tf.tensor2d(featureConstants(module, inputs), [KEYS, inputs]),
  );
  const remainder = tf.sub(hashed, tf.mul(tf.floor(tf.div(hashed, PRIME)), PRIME));
  const threshold = Math.ceil(rate * PRIME);
  // What is kept makes up for what is dropped: (p − threshold) / p of the elements, which is 1 − rate to 1 in p.
  return tf.mul(tf.cast(tf.greaterEqual(remainder, threshold), "float32"), PRIME / (PRIME - threshold));
}

/** f, g and 1 for every feature, `[3, inputs]` flat. No two features of a module share both. */
function featureConstants(module: string, inputs: number): Float32Array {
  const stream = streamOf(`lora-dropout-features/${module}`);
  const constants = new Float32Array(KEYS * inputs).fill(1, 2 * inputs);
  const taken = new Set<number>();
  for (let i = 0, draw = 0; i < inputs; draw++) {
    const code = Math.floor(PRIME * PRIME * uniformAt(0, stream, draw));
    if (taken.has(code)) continue;
    taken.add(code);
    constants[i] = Math.floor(code / PRIME);
    constants[inputs + i] = code % PRIME;
    i++;
  }
  return constants;
}
