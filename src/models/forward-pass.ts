import * as tf from "@tensorflow/tfjs";
import type { Tensor } from "@tensorflow/tfjs";
import type { Tensors } from "../engine/engine.js";
import {
  cachedAttention,
  causalAttention,
  embedding,
  linear,
  prefillAttention,
  qkvAttention,
  segment,
  sequenceMask,
  smallLinear,
  type CachedAttention,
  type LinearOptions,
} from "../engine/ops.js";
import { cacheName } from "./cache-layout.js";

/**
 * How a decoder's layers reach across positions. An architecture is written once against this interface and runs in
 * three ways: over whole sequences (training, scoring), over prompts while filling a key/value cache (prefill), and
 * one token per sequence against that cache (decode).
 */
export interface ForwardPass {
  /** B, sequences. */
  readonly batch: number;
  /** T, tokens of each sequence in this pass; 1 when decoding. */
  readonly length: number;
  /** int32 `[B·T]` */
  readonly ids: Tensor;
  /** int32 `[B·T]`: position of each token in its sequence; null: every row is at 0..T−1. */
  readonly positions: Tensor | null;
  linear(x: Tensor, w: Tensor, bias: Tensor | null, options?: LinearOptions): Tensor;
  /**
   * int32 `[N]`, flat indices in `[B·T]` of the positions whose final hidden states are wanted; null: all of them. The
   * last layer leaves the others out after its attention.
   */
  readonly wanted: Tensor | null;
  /** One layer: `body(x)`, which a pass may have computed again for its gradient. */
  layer(x: Tensor, body: (x: Tensor) => Tensor): Tensor;
  /** Causal attention of a layer: q `[B, T, H, E]`, k and v `[B, T, G, E]` -> `[B, T, H, E]`. */
  attention(layer: number, q: Tensor, k: Tensor, v: Tensor): Tensor;
  /** The same on GPT-2's fused projection: `[B·T, 3D]` -> `[B·T, D]`. */
  fusedAttention(layer: number, qkv: Tensor, heads: number): Tensor;
}

/** What a gradient computes again instead of keeping it. */
export type Recompute = "none" | "layers";

const plainLayer: ForwardPass["layer"] = (x, body) => body(x);

/** A pass that also makes new cache contents. */
export interface CachingPass extends ForwardPass {
  /** New values of the cache arena; complete once the family's `hiddenStates` has returned. */
  readonly updates: Readonly<Record<string, Tensor>>;
}

/** Whole sequences, no cache. @param ids int32 `[B, T]`, left-aligned, right-padded */
export function fullPass(ids: Tensor): ForwardPass {
  const [batch, length] = ids.shape as [number, number];
  return {
    batch,
    length,
    ids: tf.reshape(ids, [batch * length]),
    positions: null,
    wanted: null,
    linear,
    layer: plainLayer,
    attention: (_layer, q, k, v) => causalAttention(q, k, v),
    fusedAttention: (_layer, qkv, heads) => qkvAttention(qkv, batch, length, heads),
  };
}

/**
 * Rows that hold several sequences end to end, no cache: a token sees the earlier ones of its own sequence only, and
 * its position counts from that sequence's start. T may exceed the model's context, a sequence may not.
 *
 * @param ids    int32 `[B, T]`
 * @param starts int32 `[B, T]`, the column where each token's sequence starts
 * @param recompute "layers": a gradient keeps the input of every layer only and computes the rest again
 */
export function packedPass(ids: Tensor, starts: Tensor, recompute: Recompute = "none"): ForwardPass {
  const [batch, length] = ids.shape as [number, number];
  const mask = sequenceMask(starts);
  return {
    ...fullPass(ids),
    layer: (x, body) => segment(x, body, { isRecomputed: recompute === "layers" }),
    positions: tf.reshape(tf.sub(tf.range(0, length, 1, "int32"), starts), [batch * length]),
    attention: (_layer, q, k, v) => causalAttention(q, k, v, { mask }),
    fusedAttention: (_layer, qkv, heads) => qkvAttention(qkv, batch, length, heads, { mask }),
  };
}

/**
 * Prompts into the cache.
 * @param ids  int32 `[B, T]`, left-aligned, right-padded
 * @param rows int32 `[B]`, the cache slot of each prompt
 */
export function prefillPass(ids: Tensor, rows: Tensor, cache: Tensors): CachingPass {
  const [batch, length] = ids.shape as [number, number];
  const flatIds = tf.reshape(ids, [batch * length]);
  const store: StoringAttention = (inputs) => prefillAttention({ ...inputs, rows });
  return cachingPass(
    { batch, length, ids: flatIds, positions: null, wanted: null, linear, layer: plainLayer },
    cache,
    store,
  );
}

/**
 * One token per cache slot.
 * @param ids     int32 `[B]`
 * @param lengths int32 `[B]`, tokens already in each slot's cache: also the position of the new one
 */
export function decodePass(ids: Tensor, lengths: Tensor, cache: Tensors): CachingPass {
  const [batch] = ids.shape;
  const store: StoringAttention = ({ q, k, v, ...past }) => {
    const token = (t: Tensor) => tf.reshape(t, [batch, t.shape[2]!, t.shape[3]!]);
    const result = cachedAttention({ ...past, q: token(q), k: token(k), v: token(v), lengths });
    return { ...result, out: tf.reshape(result.out, q.shape) };
  };
  return cachingPass(
    { batch, length: 1, ids, positions: lengths, wanted: null, linear: smallLinear, layer: plainLayer },
    cache,
    store,
  );
}

type StoringAttention = (inputs: {
  readonly q: Tensor;
  readonly k: Tensor;
  readonly v: Tensor;
  readonly pastK: Tensor;
  readonly pastV: Tensor;
  readonly scale: number;
}) => CachedAttention;

function cachingPass(
  base: Omit<ForwardPass, "attention" | "fusedAttention">,
  cache: Tensors,
  store: StoringAttention,
): CachingPass {
  const { batch, length } = base;
  const updates: Record<string, Tensor> = {};
  const attention = (layer: number, q: Tensor, k: Tensor, v: Tensor): Tensor => {
    const pastK = cache[cacheName(layer, "k")];
    const pastV = cache[cacheName(layer, "v")];
    const width = q.shape[3]!;
    const padding = pastK.shape[3]! - width;
    const pad = (t: Tensor): Tensor =>
      padding === 0
        ? t
        : tf.pad(t, [
            [0, 0],
            [0, 0],
            [0, 0],
            [0, padding],
          ]);
    const result = store({ q: pad(q), k: pad(k), v: pad(v), pastK, pastV, scale: 1 / Math.sqrt(width) });
    updates[cacheName(layer, "k")] = result.k;
    updates[cacheName(layer, "v")] = result.v;
    return padding === 0 ? result.out : tf.slice(result.out, [0, 0, 0, 0], q.shape as number[]);
  };
  const fusedAttention = (layer: number, qkv: Tensor, heads: number): Tensor => {
    const width = qkv.shape[1]! / 3;
    const [q, k, v] = tf.split(qkv, 3, -1).map((t) => tf.reshape(t, [batch, length, heads, width / heads]));
    return tf.reshape(attention(layer, q, k, v), [batch * length, width]);
  };
  return { ...base, attention, fusedAttention, updates };
}

/**
 * The rows of `tensors` that a layer still needs once its attention is done: all, or in the last layer those wanted.
 * @param tensors `[B·T, …]` each
 */
export function afterAttention(pass: ForwardPass, isLastLayer: boolean, ...tensors: Tensor[]): Tensor[] {
  const { wanted } = pass;
  if (wanted === null || !isLastLayer) return tensors;
  return tensors.map((tensor) => embedding(tensor, wanted));
}

/**
 * Adds learned position embeddings.
 * @param x      `[B·T, D]` token embeddings
 * @param table  `[positions, D]`
 * @param offset row of position 0 (OPT: 2)
 */
export function addPositions(x: Tensor, table: Tensor, pass: ForwardPass, offset = 0): Tensor {
  const width = x.shape[1]!;
  if (pass.positions !== null) {
    const rows = offset === 0 ? pass.positions : tf.add(pass.positions, tf.scalar(offset, "int32"));
    return tf.add(x, embedding(table, rows));
  }
  const { batch, length } = pass;
  const positions = tf.slice(table, [offset, 0], [length, width]);
  return tf.reshape(tf.add(tf.reshape(x, [batch, length, width]), positions), [batch * length, width]);
}
