/**
 * AdamW and gradient clipping as plain functions over tensors, and the program that applies them to arenas.
 * Everything is element by element in a fixed order, so the same gradient gives the same bits on every learner.
 */
import * as tf from "@tensorflow/tfjs";
import type { Scalar, Tensor } from "@tensorflow/tfjs";
import type { Program, Tensors } from "./engine.js";
import type { Layout } from "./layout.js";

export interface AdamwOptions {
  readonly beta1: number;
  readonly beta2: number;
  /** Added to √v̂, as PyTorch does (not inside the root). */
  readonly epsilon: number;
  /** Decoupled: multiplies the parameter by 1 − learningRate·weightDecay. */
  readonly weightDecay: number;
  /** Largest global gradient norm; 0 turns clipping off. */
  readonly clipNorm: number;
  /** Which tensors are not decayed. @default vectors: biases and norm weights */
  readonly noDecay?: (name: string, shape: readonly number[]) => boolean;
}

export interface AdamwState {
  readonly param: Tensor;
  readonly m: Tensor;
  readonly v: Tensor;
}

/** Scalars of one optimizer step. */
export interface AdamwStep {
  readonly learningRate: Scalar;
  /** Number of this step, from 1, as float32. */
  readonly step: Scalar;
}

/** PyTorch's guard in clip_grad_norm_ against dividing by a zero norm. */
export const CLIP_EPSILON = 1e-6;

/**
 * One AdamW update of one tensor (PyTorch's order of operations).
 *
 *   m ← β₁m + (1 − β₁)g      v ← β₂v + (1 − β₂)g²
 *   p ← p·(1 − η·λ) − (η / (1 − β₁ᵗ)) · m / (√v / √(1 − β₂ᵗ) + ε)
 *
 * @param weightDecay λ; 0 for tensors that are not decayed
 * @see Loshchilov & Hutter 2019, arXiv:1711.05101; torch.optim.AdamW
 */
export function adamwUpdate(
  { param, m, v }: AdamwState,
  grad: Tensor,
  { learningRate, step }: AdamwStep,
  options: Pick<AdamwOptions, "beta1" | "beta2" | "epsilon" | "weightDecay">,
): AdamwState {
  const { beta1, beta2, epsilon, weightDecay } = options;
  const nextM = tf.add(tf.mul(m, beta1), tf.mul(grad, 1 - beta1));
  const nextV = tf.add(tf.mul(v, beta2), tf.mul(tf.square(grad), 1 - beta2));
  const stepSize = tf.div(learningRate, oneMinusPower(beta1, step));
  const correction = tf.rsqrt(oneMinusPower(beta2, step));
  const denominator = tf.add(tf.mul(tf.sqrt(nextV), correction), epsilon);
  const decayed = weightDecay === 0 ? param : tf.mul(param, tf.sub(1, tf.mul(learningRate, weightDecay)));
  const nextParam = tf.sub(decayed, tf.mul(tf.div(nextM, denominator), stepSize));
  return { param: nextParam, m: nextM, v: nextV };
}

/** 1 − βᵗ as −expm1(t·ln β): in float32, 1 − 0.999¹ computed directly would be off by 6e-5. */
function oneMinusPower(beta: number, step: Scalar): Tensor {
  return beta === 0 ? tf.onesLike(step) : tf.neg(tf.expm1(tf.mul(step, Math.log(beta))));
}

/** √(Σ over all tensors of Σ g²), summed tensor by tensor in the order given. */
export function globalNorm(grads: Tensors): Scalar {
  const squares = Object.values(grads).map((grad) => tf.sum(tf.square(grad)));
  return tf.sqrt(tf.sum(tf.stack(squares))) as Scalar;
}

/**
 * Scales all gradients together so that their global norm is at most `clipNorm`: g · min(1, clipNorm / (norm + 1e-6)).
 *
 * @param clipNorm > 0; 0 returns the gradients as they are
 * @returns norm before clipping
 */
export function clipByGlobalNorm(grads: Tensors, clipNorm: number): { grads: Tensors; norm: Scalar } {
  const norm = globalNorm(grads);
  if (clipNorm === 0) return { grads, norm };
  const scale = tf.minimum(1, tf.div(clipNorm, tf.add(norm, CLIP_EPSILON)));
  const scaled = Object.entries(grads).map(([name, grad]) => [name, tf.mul(grad, scale)] as const);
  return { grads: Object.fromEntries(scaled), norm };
}

/** Vectors: biases and norm weights. */
export const isVector = (_name: string, shape: readonly number[]): boolean => shape.length < 2;

/**
 * One optimizer step over whole arenas.
 *
 *   arenas  params, m, v (updated), grads (read)      all of `layout`
 *   inputs  learningRate `[]`, step `[]` (from 1, float32)
 *   outputs gradNorm `[]`: global norm before clipping
 */
export function makeAdamwProgram(layout: Layout, options: AdamwOptions): Program {
  const { beta1, beta2, epsilon, weightDecay, clipNorm, noDecay = isVector } = options;
  const names = layout.entries.map(({ name }) => name);
  const decays = layout.entries.map(({ name, shape }) => (noDecay(name, shape) ? 0 : weightDecay));
  const scalar = { shape: [], dtype: "float32" } as const;
  return {
    key: `adamw ${JSON.stringify([beta1, beta2, epsilon, clipNorm, decays, shapesOf(layout)])}`,
    arenas: {
      params: { layout, access: "update" },
      grads: { layout, access: "read" },
      m: { layout, access: "update" },
      v: { layout, access: "update" },
    },
    inputs: { learningRate: scalar, step: scalar },
    body: (arenas, { learningRate, step }) => {
      const { grads, norm } = clipByGlobalNorm(arenas.grads, clipNorm);
      const scalars = { learningRate: learningRate as Scalar, step: step as Scalar };
      const next = names.map((name, i) => {
        const state = { param: arenas.params[name], m: arenas.m[name], v: arenas.v[name] };
        return adamwUpdate(state, grads[name], scalars, { beta1, beta2, epsilon, weightDecay: decays[i] });
      });
      const byName = (pick: (state: AdamwState) => Tensor): Tensors =>
        Object.fromEntries(names.map((name, i) => [name, pick(next[i])]));
      return {
        outputs: { gradNorm: norm },
        updates: { params: byName((s) => s.param), m: byName((s) => s.m), v: byName((s) => s.v) },
      };
    },
  };
}

const shapesOf = (layout: Layout) => layout.entries.map(({ name, shape }) => [name, ...shape]);
