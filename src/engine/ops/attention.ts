import * as tf from "@tensorflow/tfjs";
import type { Tensor } from "@tensorflow/tfjs";
import { shapeError } from "../../shared/errors.js";
import { activeTrace, type TraceBackend } from "../trace/backend.js";
import type { GraphBuilder } from "../trace/graph.js";
import { fusedOp } from "./fused-op.js";

/** Added to a score to hide it: exp() of it is exactly 0 in float32, and it stays finite in gradients. */
export const HIDDEN_SCORE = -1e9;

export interface AttentionOptions {
  /** Multiplies q·k. @default 1/√E */
  readonly scale?: number;
  /**
   * `[B, 1, T, T]`, added to the scores in place of the causal mask: 0 where query t may read key s, HIDDEN_SCORE
   * elsewhere. No gradient flows into it. @default causal
   */
  readonly mask?: Tensor;
}

/** Sizes of one attention. */
interface Extent {
  readonly batch: number;
  readonly length: number;
  /** Query heads. */
  readonly heads: number;
  /** Key and value heads. */
  readonly groups: number;
  /** Width of a head. */
  readonly width: number;
  readonly scale: number;
}

/**
 * Causal multi-head attention with grouped queries: query head h reads key/value head ⌊h·G/H⌋.
 *
 *   out_t = Σ_{s ≤ t} softmax_s(scale · q_t·k_s) v_s
 *
 * Sequences are left-aligned and right-padded: a pad position comes after every real one, so causality alone
 * keeps pads out of real positions and no padding mask exists. Outputs at pad positions are meaningless.
 *
 * @param q `[B, T, H, E]`  @param k `[B, T, G, E]`, G divides H  @param v `[B, T, G, E]`
 * @returns `[B, T, H, E]`
 */
export function causalAttention(q: Tensor, k: Tensor, v: Tensor, options: AttentionOptions = {}): Tensor {
  const [batch, length, heads, width] = q.shape;
  const [, , groups] = k.shape;
  if (heads % groups !== 0)
    throw shapeError(`causalAttention: ${groups} key heads do not divide ${heads} query heads`);
  const extent = { batch, length, heads, groups, width, scale: options.scale ?? 1 / Math.sqrt(width) };
  const trace = activeTrace();
  return trace === null
    ? plainAttention(q, k, v, extent, options.mask)
    : fusedOp(trace, [q, k, v], (graph, names) => {
        const [query, key, value] = names.map((name) => graph.transpose(name, [0, 2, 1, 3]));
        const mask = maskName(trace, length, options.mask);
        const { out, gradients } = fusedAttention(graph, [query, key, value], mask, extent);
        return {
          value: graph.transpose(out, [0, 2, 1, 3]),
          shape: q.shape,
          gradients: (dy) =>
            gradients(graph.transpose(dy, [0, 2, 1, 3])).map((name) => graph.transpose(name, [0, 2, 1, 3])),
        };
      });
}

/**
 * `causalAttention` on GPT-2's fused projection (query, key and value side by side), H heads.
 *
 * @param qkv `[B·T, 3D]`
 * @returns `[B·T, D]`
 */
export function qkvAttention(
  qkv: Tensor,
  batch: number,
  length: number,
  heads: number,
  options: Pick<AttentionOptions, "mask"> = {},
): Tensor {
  const hidden = qkv.shape[1]! / 3;
  const width = hidden / heads;
  const trace = activeTrace();
  if (trace === null) {
    const [q, k, v] = tf.split(qkv, 3, -1).map((part) => tf.reshape(part, [batch, length, heads, width]));
    return tf.reshape(causalAttention(q, k, v, options), [batch * length, hidden]);
  }
  const extent = { batch, length, heads, groups: heads, width, scale: 1 / Math.sqrt(width) };
  const tokens = batch * length;
  return fusedOp(trace, [qkv], (graph, [name]) => {
    // One transpose for all three: [3, B, H, T, E].
    const stacked = graph.transpose(graph.reshape(name, [batch, length, 3, heads, width]), [2, 0, 3, 1, 4]);
    const [query, key, value] = graph
      .emit("Split", [stacked, graph.int64s([1, 1, 1])], 3, { axis: 0 })
      .map((part) => graph.reshape(part, [batch, heads, length, width]));
    const mask = maskName(trace, length, options.mask);
    const { out, gradients } = fusedAttention(graph, [query, key, value], mask, extent);
    return {
      value: graph.reshape(graph.transpose(out, [0, 2, 1, 3]), [tokens, hidden]),
      shape: [tokens, hidden],
      gradients: (dy) => {
        const dOut = graph.transpose(graph.reshape(dy, [batch, length, heads, width]), [0, 2, 1, 3]);
        const parts = gradients(dOut).map((part) => graph.reshape(part, [1, batch, heads, length, width]));
        const joined = graph.transpose(graph.op("Concat", parts, { axis: 0 }), [1, 3, 0, 2, 4]);
        return [graph.reshape(joined, [tokens, 3 * hidden])];
      },
    };
  });
}

/**
 * Heads first: query `[B, H, T, E]`, key and value `[B, G, T, E]`. Query heads that share a key head are stacked
 * along the row axis, so that no key or value is repeated and their gradients sum by themselves.
 *
 *   dV = Pᵀ·dO    dS = P ⊙ (dO·Vᵀ − rowsum(dO ⊙ O))    dQ = scale·dS·K    dK = scale·dSᵀ·Q
 */
function fusedAttention(
  graph: GraphBuilder,
  [query, key, value]: readonly string[],
  mask: string,
  extent: Extent,
) {
  const { batch, length, heads, groups, width, scale } = extent;
  const rows = (heads / groups) * length;
  const isGrouped = groups !== heads;
  const toGroups = (x: string, columns: number) =>
    isGrouped ? graph.reshape(x, [batch, groups, rows, columns]) : x;
  const toHeads = (x: string, columns: number) =>
    isGrouped ? graph.reshape(x, [batch, heads, length, columns]) : x;
  const rank = 4;

  const q = toGroups(query, width);
  const scores = toHeads(graph.matMul(q, key, { transB: true, alpha: scale, rank }), length);
  const weights = toGroups(graph.op("Softmax", [graph.op("Add", [scores, mask])], { axis: -1 }), length);
  const grouped = graph.matMul(weights, value, { rank });
  return {
    out: toHeads(grouped, width),
    gradients: (dOut: string): string[] => {
      const dGrouped = toGroups(dOut, width);
      const dValue = graph.matMul(weights, dGrouped, { transA: true, rank });
      const dWeights = graph.matMul(dGrouped, value, { transB: true, rank });
      const rowSum = graph.reduceSum(graph.op("Mul", [dGrouped, grouped]), [-1], true);
      const dScores = graph.op("Mul", [weights, graph.op("Sub", [dWeights, rowSum])]);
      const dQuery = toHeads(graph.matMul(dScores, key, { alpha: scale, rank }), width);
      const dKey = graph.matMul(dScores, q, { transA: true, alpha: scale, rank });
      return [dQuery, dKey, dValue];
    },
  };
}

function maskName(trace: TraceBackend, length: number, mask: Tensor | undefined): string {
  if (mask !== undefined) return trace.name(mask);
  const shape = [length, length];
  return trace.graph.constant("float32", shape, causalMask(length), `causal mask ${length}`);
}

function plainAttention(q: Tensor, k: Tensor, v: Tensor, extent: Extent, given?: Tensor): Tensor {
  const { batch, length, heads, groups, width, scale } = extent;
  const rows = (heads / groups) * length;
  const headsFirst = (x: Tensor, count: number) =>
    tf.reshape(tf.transpose(x, [0, 2, 1, 3]), [batch, groups, count, width]);
  const keys = headsFirst(k, length);
  const values = headsFirst(v, length);
  const scores = tf.mul(tf.matMul(headsFirst(q, rows), keys, false, true), scale);
  const mask = given ?? tf.tensor2d(causalMask(length), [length, length]);
  const masked = tf.add(tf.reshape(scores, [batch, heads, length, length]), mask);
  const weights = tf.reshape(tf.softmax(masked), [batch, groups, rows, length]);
  const out = tf.reshape(tf.matMul(weights, values), [batch, heads, length, width]);
  return tf.transpose(out, [0, 2, 1, 3]);
}

/**
 * The `mask` of rows that hold several sequences end to end: a token reads the earlier ones of its own sequence.
 *
 * @param starts int32 `[B, T]`, the column where each token's sequence starts
 * @returns `[B, 1, T, T]`
 */
export function sequenceMask(starts: Tensor): Tensor {
  const [batch, length] = starts.shape as [number, number];
  const columns = tf.range(0, length, 1, "int32");
  const isEarlier = tf.less(tf.reshape(columns, [1, 1, length]), tf.reshape(starts, [batch, length, 1]));
  const hidden = tf.mul(tf.cast(isEarlier, "float32"), HIDDEN_SCORE);
  const mask = tf.minimum(hidden, tf.tensor2d(causalMask(length), [length, length]));
  return tf.reshape(mask, [batch, 1, length, length]);
}

/** `[T, T]`: 0 on and below the diagonal, HIDDEN_SCORE above it. */
function causalMask(length: number): Float32Array {
  const mask = new Float32Array(length * length);
  for (let row = 0; row < length; row++) mask.fill(HIDDEN_SCORE, row * length + row + 1, (row + 1) * length);
  return mask;
}
