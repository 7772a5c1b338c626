import * as tf from "@tensorflow/tfjs";
import type { Tensor } from "@tensorflow/tfjs";
import { activeTrace, type TraceBackend } from "../trace/backend.js";
import { causalAttention, HIDDEN_SCORE } from "./attention.js";

/** New cache values of one layer; return them as updates of the arena that `pastK`/`pastV` came from. */
export interface CachedAttention {
  readonly out: Tensor;
  readonly k: Tensor;
  readonly v: Tensor;
}

export interface DecodeAttentionInputs {
  /** `[B, H, E]` of the token being decoded. */
  readonly q: Tensor;
  /** `[B, G, E]` */
  readonly k: Tensor;
  /** `[B, G, E]` */
  readonly v: Tensor;
  /** `[B, G, S, E]`: S slots per row, the first `lengths[b]` hold row b's past. */
  readonly pastK: Tensor;
  readonly pastV: Tensor;
  /** int32 `[B]` in [0, S): where each row's new key and value go. */
  readonly lengths: Tensor;
  /** Multiplies q·k. @default 1/√E */
  readonly scale?: number;
}

/**
 * One decode step of attention: row b writes its key and value at slot lengths[b], then attends slots
 * 0..lengths[b]. Rows do not see each other; slots above lengths[b] keep unspecified values and are never read.
 *
 * @returns out `[B, H, E]`, k and v `[B, G, S, E]`
 */
export function cachedAttention(inputs: DecodeAttentionInputs): CachedAttention {
  const { q, k, v, pastK, pastV, lengths } = inputs;
  const [batch, groups, slots, width] = pastK.shape;
  const heads = q.shape[1]!;
  const scale = inputs.scale ?? 1 / Math.sqrt(width);
  const trace = activeTrace();
  if (trace !== null) return fusedCachedAttention(trace, inputs, scale);
  const here = tf.reshape(tf.oneHot(lengths as tf.Tensor1D, slots).toFloat(), [batch, 1, slots, 1]);
  const write = (past: Tensor, value: Tensor) =>
    tf.add(tf.mul(past, tf.sub(1, here)), tf.mul(here, tf.reshape(value, [batch, groups, 1, width])));
  const keys = write(pastK, k);
  const values = write(pastV, v);
  const visible = tf.lessEqual(tf.range(0, slots, 1, "int32"), tf.reshape(lengths, [batch, 1]));
  const mask = tf.where(visible, tf.zeros([batch, slots]), tf.fill([batch, slots], HIDDEN_SCORE));
  const queries = tf.reshape(q, [batch, groups, heads / groups, width]);
  const scores = tf.add(
    tf.mul(tf.matMul(queries, keys, false, true), scale),
    tf.reshape(mask, [batch, 1, 1, slots]),
  );
  const out = tf.reshape(tf.matMul(tf.softmax(scores), values), [batch, heads, width]);
  return { out, k: keys, v: values };
}

export interface PrefillAttentionInputs {
  /** `[B, T, H, E]` */
  readonly q: Tensor;
  /** `[B, T, G, E]` */
  readonly k: Tensor;
  readonly v: Tensor;
  /** `[C, G, S, E]`, S ≥ T. */
  readonly pastK: Tensor;
  readonly pastV: Tensor;
  /**
   * int32 `[B]` in [0, C): cache row of each prompt, so that freed rows can be refilled while others keep
   * decoding. Two prompts may share a row only if they are identical (a batch is padded by repeating one).
   * @default 0..B−1
   */
  readonly rows?: Tensor;
  readonly scale?: number;
}

/**
 * Causal attention over whole prompts (left-aligned, right-padded) that also stores their keys and values in
 * slots 0..T−1 of the cache. What pads store is overwritten by decode steps before it is ever read.
 *
 * @returns out `[B, T, H, E]`, k and v `[C, G, S, E]` with all other rows and slots unchanged
 */
export function prefillAttention(inputs: PrefillAttentionInputs): CachedAttention {
  const { q, k, v, pastK, pastV } = inputs;
  const out = causalAttention(q, k, v, inputs.scale === undefined ? {} : { scale: inputs.scale });
  const rows = inputs.rows ?? tf.range(0, q.shape[0], 1, "int32");
  return { out, k: storePrompt(pastK, k, rows), v: storePrompt(pastV, v, rows) };
}

/**
 * GroupQueryAttention with one buffer for past and present: the new key and value are written where they belong
 * and nothing else moves.
 *
 * @see https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.GroupQueryAttention
 */
function fusedCachedAttention(
  trace: TraceBackend,
  inputs: DecodeAttentionInputs,
  scale: number,
): CachedAttention {
  const { graph } = trace;
  const { q, pastK } = inputs;
  const [batch, groups, slots, width] = pastK.shape;
  const heads = q.shape[1]!;
  const token = (x: Tensor, count: number) => graph.reshape(trace.name(x), [batch, 1, count * width]);
  const operands = [
    token(q, heads),
    token(inputs.k, groups),
    token(inputs.v, groups),
    trace.name(pastK),
    trace.name(inputs.pastV),
    trace.name(inputs.lengths), // per row: total length − 1
    graph.int(slots), // the longest total length; a constant keeps rows independent of each other
  ];
  const attributes = { num_heads: heads, kv_num_heads: groups, scale: { float: scale } };
  const domain = { domain: "com.microsoft" };
  const [out, k, v] = graph.emit("GroupQueryAttention", operands, 3, attributes, domain);
  return {
    out: trace.tensor(graph.reshape(out, [batch, heads, width]), q.shape),
    k: trace.tensor(k, pastK.shape),
    v: trace.tensor(v, pastK.shape),
  };
}

/** `past[rows[b], g, t, e] = value[b, t, g, e]` */
function storePrompt(past: Tensor, value: Tensor, rows: Tensor): Tensor {
  const trace = activeTrace();
  if (trace !== null) return fusedStorePrompt(trace, past, value, rows);
  const [cacheRows, groups, slots, width] = past.shape;
  const [batch, length] = value.shape;
  const owner = tf.oneHot(rows as tf.Tensor1D, cacheRows).toFloat(); // [B, C]
  const writers = tf.sum(owner, 0); // [C]: how many prompts name this row
  const flat = tf.reshape(tf.transpose(value, [0, 2, 1, 3]), [batch, groups * length! * width]);
  const placed = tf.matMul(tf.div(owner, tf.maximum(writers, 1)), flat, true, false);
  const written = tf.pad(tf.reshape(placed, [cacheRows, groups, length!, width]), [
    [0, 0],
    [0, 0],
    [0, slots - length!],
    [0, 0],
  ]);
  const isWritten = tf.mul(
    tf.reshape(tf.minimum(writers, 1), [cacheRows, 1, 1, 1]),
    tf.reshape(tf.cast(tf.less(tf.range(0, slots, 1, "int32"), length!), "float32"), [1, 1, slots, 1]),
  );
  return tf.add(tf.mul(past, tf.sub(1, isWritten)), written);
}

/** ScatterElements along the row axis; its updates may be shorter than its data, which leaves later slots alone. */
function fusedStorePrompt(trace: TraceBackend, past: Tensor, value: Tensor, rows: Tensor): Tensor {
  const { graph } = trace;
  const [batch, length, groups, width] = value.shape;
  const updates = graph.transpose(trace.name(value), [0, 2, 1, 3]);
  const row = graph.reshape(graph.cast(trace.name(rows), "int64"), [batch, 1, 1, 1]);
  const indices = graph.op("Expand", [row, graph.int64s([batch, groups, length!, width])]);
  const stored = graph.op("ScatterElements", [trace.name(past), indices, updates], { axis: 0 });
  return trace.tensor(stored, past.shape);
}
