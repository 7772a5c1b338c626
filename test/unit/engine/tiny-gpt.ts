/** A two-layer GPT-2 on the engine's ops, for tests of whole training and decoding steps. */
import * as tf from "@tensorflow/tfjs";
import type { Tensor } from "@tensorflow/tfjs";
import type { Tensors } from "../../../src/engine/engine.js";
import { makeLayout, type Layout } from "../../../src/engine/layout.js";
import * as ops from "../../../src/engine/ops.js";
import { TestRandom } from "./random.js";

export interface TinyGpt {
  readonly layers: number;
  readonly hidden: number;
  readonly heads: number;
  readonly vocabulary: number;
  readonly context: number;
}

export const TINY: TinyGpt = { layers: 2, hidden: 32, heads: 4, vocabulary: 61, context: 16 };

export function tinyLayout({ layers, hidden, vocabulary, context }: TinyGpt): Layout {
  const shapes: Record<string, number[]> = { wte: [vocabulary, hidden], wpe: [context, hidden] };
  for (let l = 0; l < layers; l++) {
    shapes[`h${l}.ln1.g`] = shapes[`h${l}.ln1.b`] = shapes[`h${l}.ln2.g`] = shapes[`h${l}.ln2.b`] = [hidden];
    shapes[`h${l}.qkv.w`] = [hidden, 3 * hidden];
    shapes[`h${l}.qkv.b`] = [3 * hidden];
    shapes[`h${l}.out.w`] = [hidden, hidden];
    shapes[`h${l}.out.b`] = [hidden];
    shapes[`h${l}.up.w`] = [hidden, 4 * hidden];
    shapes[`h${l}.up.b`] = [4 * hidden];
    shapes[`h${l}.down.w`] = [4 * hidden, hidden];
    shapes[`h${l}.down.b`] = [hidden];
  }
  shapes["ln.g"] = shapes["ln.b"] = [hidden];
  return makeLayout(shapes);
}

export function tinyParams(layout: Layout, seed = 1, scale = 0.2): Float32Array {
  const random = new TestRandom(seed);
  const values = random.floats(layout.size, scale);
  for (const { name, offset, size } of layout.entries) {
    if (name.endsWith(".g")) for (let i = offset; i < offset + size; i++) values[i] += 1;
  }
  return values;
}

/** Final hidden states `[B·T, D]` of ids `[B, T]`. */
export function tinyHidden(gpt: TinyGpt, p: Tensors, ids: Tensor): Tensor {
  const [batch, length] = ids.shape;
  const { hidden, heads } = gpt;
  const embedded = tf.reshape(ops.embedding(p.wte, tf.reshape(ids, [-1])), [batch, length!, hidden]);
  const positions = tf.slice(p.wpe, [0, 0], [length!, hidden]);
  let x = tf.reshape(tf.add(embedded, positions), [batch * length!, hidden]) as Tensor;
  for (let l = 0; l < gpt.layers; l++) {
    const at = (name: string) => p[`h${l}.${name}`];
    const a = ops.layerNorm(x, at("ln1.g"), at("ln1.b"), 1e-5);
    const attended = ops.qkvAttention(ops.linear(a, at("qkv.w"), at("qkv.b")), batch, length!, heads);
    x = tf.add(x, ops.linear(attended, at("out.w"), at("out.b")));
    const m = ops.layerNorm(x, at("ln2.g"), at("ln2.b"), 1e-5);
    const up = ops.biasActivation(ops.linear(m, at("up.w"), null), at("up.b"), "gelu_new");
    x = tf.add(x, ops.linear(up, at("down.w"), at("down.b")));
  }
  return ops.layerNorm(x, p["ln.g"], p["ln.b"], 1e-5);
}

/** Key and value caches of every layer, `[rows, H, slots, E]` each. */
export function cacheLayout(gpt: TinyGpt, rows: number, slots: number): Layout {
  const shape = [rows, gpt.heads, slots, gpt.hidden / gpt.heads];
  const shapes = Array.from({ length: gpt.layers }, (_, l) => [
    [`k${l}`, shape],
    [`v${l}`, shape],
  ]).flat();
  return makeLayout(Object.fromEntries(shapes) as Record<string, number[]>);
}

export interface CachedResult {
  /** `[rows, V]` */
  readonly logits: Tensor;
  readonly cache: Tensors;
}

/** Whole prompts `[B, T]` into the cache; logits of every position, `[B·T, V]`. */
export function tinyPrefill(
  gpt: TinyGpt,
  p: Tensors,
  cache: Tensors,
  ids: Tensor,
  rows: Tensor,
): CachedResult {
  const [batch, length] = ids.shape;
  const { hidden, heads } = gpt;
  const split = (x: Tensor) => tf.reshape(x, [batch, length!, heads, hidden / heads]);
  const embedded = tf.reshape(ops.embedding(p.wte, tf.reshape(ids, [-1])), [batch, length!, hidden]);
  const x0 = tf.reshape(tf.add(embedded, tf.slice(p.wpe, [0, 0], [length!, hidden])), [
    batch * length!,
    hidden,
  ]);
  return runCached(gpt, p, x0, ops.linear, (l, [q, k, v]) => {
    const past = { pastK: cache[`k${l}`], pastV: cache[`v${l}`], rows };
    const result = ops.prefillAttention({ q: split(q), k: split(k), v: split(v), ...past });
    return { ...result, out: tf.reshape(result.out, [batch * length!, hidden]) };
  });
}

/** One token per row: ids `[B]` at positions lengths `[B]`. */
export function tinyDecode(
  gpt: TinyGpt,
  p: Tensors,
  cache: Tensors,
  ids: Tensor,
  lengths: Tensor,
): CachedResult {
  const { hidden, heads } = gpt;
  const [batch] = ids.shape;
  const split = (x: Tensor) => tf.reshape(x, [batch, heads, hidden / heads]);
  const x0 = tf.add(ops.embedding(p.wte, ids), ops.embedding(p.wpe, lengths));
  return runCached(gpt, p, x0, ops.smallLinear, (l, [q, k, v]) => {
    const past = { pastK: cache[`k${l}`], pastV: cache[`v${l}`], lengths };
    const result = ops.cachedAttention({ q: split(q), k: split(k), v: split(v), ...past });
    return { ...result, out: tf.reshape(result.out, [batch, hidden]) };
  });
}

function runCached(
  gpt: TinyGpt,
  p: Tensors,
  x0: Tensor,
  linear: typeof ops.linear,
  attend: (layer: number, qkv: Tensor[]) => ops.CachedAttention,
): CachedResult {
  const cache: Record<string, Tensor> = {};
  let x = x0;
  for (let l = 0; l < gpt.layers; l++) {
    const at = (name: string) => p[`h${l}.${name}`];
    const a = ops.layerNorm(x, at("ln1.g"), at("ln1.b"), 1e-5);
    const { out, k, v } = attend(l, tf.split(linear(a, at("qkv.w"), at("qkv.b")), 3, -1));
    cache[`k${l}`] = k;
    cache[`v${l}`] = v;
    x = tf.add(x, linear(out, at("out.w"), at("out.b")));
    const m = ops.layerNorm(x, at("ln2.g"), at("ln2.b"), 1e-5);
    const up = ops.biasActivation(linear(m, at("up.w"), null), at("up.b"), "gelu_new");
    x = tf.add(x, linear(up, at("down.w"), at("down.b")));
  }
  const last = ops.layerNorm(x, p["ln.g"], p["ln.b"], 1e-5);
  return { logits: linear(last, p.wte, null, { weightIsOutIn: true }), cache };
}
