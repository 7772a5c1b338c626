/** One case per op: its float tensors are differentiated, its integer inputs are not. */
import * as tf from "@tensorflow/tfjs";
import type { Tensor } from "@tensorflow/tfjs";
import type { Program, Tensors } from "../../../src/engine/engine.js";
import { valueAndGradients } from "../../../src/engine/gradients.js";
import { makeLayout } from "../../../src/engine/layout.js";
import * as ops from "../../../src/engine/ops.js";

export interface OpCase {
  readonly title: string;
  readonly params: Readonly<Record<string, readonly number[]>>;
  /** Integer inputs: shape, and the bound their random values stay below. */
  readonly ints?: Readonly<Record<string, { shape: readonly number[]; below: number }>>;
  readonly op: (params: Tensors, ints: Tensors) => Tensor;
}

const B = 2;
const T = 5;
const H = 4;
const E = 6;

export const opCases: readonly OpCase[] = [
  {
    title: "layerNorm",
    params: { x: [7, 12], gamma: [12], beta: [12] },
    op: ({ x, gamma, beta }) => ops.layerNorm(x, gamma, beta, 1e-5),
  },
  {
    title: "rmsNorm",
    params: { x: [7, 12], weight: [12] },
    op: ({ x, weight }) => ops.rmsNorm(x, weight, 1e-6),
  },
  ...[true, false].flatMap((weightIsOutIn) =>
    [true, false].map((hasBias): OpCase => {
      const w = weightIsOutIn ? [10, 6] : [6, 10];
      return {
        title: `linear, weight ${weightIsOutIn ? "[out, in]" : "[in, out]"}, ${hasBias ? "with" : "no"} bias`,
        params: { x: [5, 6], w, ...(hasBias ? { bias: [10] } : {}) },
        op: (p) => ops.linear(p.x, p.w, p.bias ?? null, { weightIsOutIn }),
      };
    }),
  ),
  ...(["gelu_new", "gelu", "relu", "silu"] as const).flatMap((kind) =>
    [true, false].map((hasBias): OpCase => ({
      title: `biasActivation ${kind}, ${hasBias ? "with" : "no"} bias`,
      params: { x: [6, 9], ...(hasBias ? { bias: [9] } : {}) },
      op: (p) => ops.biasActivation(tf.mul(p.x, 3), p.bias ?? null, kind),
    })),
  ),
  ...[H, 2, 1].map((groups): OpCase => ({
    title: `causalAttention, ${groups} of ${H} key heads`,
    params: { q: [B, T, H, E], k: [B, T, groups, E], v: [B, T, groups, E] },
    op: ({ q, k, v }) => ops.causalAttention(q, k, v),
  })),
  {
    title: "causalAttention with a scale",
    params: { q: [B, T, H, E], k: [B, T, H, E], v: [B, T, H, E] },
    op: ({ q, k, v }) => ops.causalAttention(q, k, v, { scale: 0.7 }),
  },
  {
    title: "qkvAttention",
    params: { qkv: [B * T, 3 * H * E] },
    op: ({ qkv }) => ops.qkvAttention(qkv, B, T, H),
  },
  ...([1, H] as const).map((groups): OpCase => ({
    title: `sequences end to end, ${groups} of ${H} key heads`,
    params: { q: [B, T, H, E], k: [B, T, groups, E], v: [B, T, groups, E] },
    ints: { drawn: { shape: [B, T], below: T } },
    op: ({ q, k, v }, { drawn }) => {
      const starts = tf.minimum(drawn, tf.reshape(tf.range(0, T, 1, "int32"), [1, T]));
      return ops.causalAttention(q, k, v, { mask: ops.sequenceMask(starts) });
    },
  })),
  {
    title: "embedding with repeated ids",
    params: { table: [5, 8] },
    ints: { ids: { shape: [12], below: 5 } },
    op: ({ table }, { ids }) => ops.embedding(table, ids),
  },
  {
    title: "tied embedding: gather and head on one table",
    params: { table: [9, 8] },
    ints: { ids: { shape: [12], below: 9 }, labels: { shape: [12], below: 9 } },
    op: ({ table }, { ids, labels }) =>
      ops.headLogprobs(ops.embedding(table, ids), table, labels, 1).logprobs,
  },
  ...[1, 0.7].map((temperature): OpCase => ({
    title: `headLogprobs at temperature ${temperature}`,
    params: { x: [6, 8], w: [11, 8] },
    ints: { labels: { shape: [6], below: 11 } },
    op: ({ x, w }, { labels }) => ops.headLogprobs(tf.mul(x, 4), w, labels, temperature).logprobs,
  })),
  {
    title: "rotaryEmbedding",
    params: { x: [B, T, H, E] },
    ints: { positions: { shape: [B, T], below: 40 } },
    op: ({ x }, { positions }) =>
      ops.rotaryEmbedding(x, ops.rotaryTable(positions, ops.inverseFrequencies(E, 10_000))),
  },
];

/** Forward value and all gradients of Σ y·c, with fixed c so that no gradient is uniform. */
export function opProgram({ title, params, ints = {}, op }: OpCase): Program {
  return {
    key: `op ${title}`,
    arenas: { params: { layout: makeLayout(params), access: "read" } },
    inputs: Object.fromEntries(
      Object.entries(ints).map(([name, { shape }]) => [name, { shape, dtype: "int32" as const }]),
    ),
    body: (arenas, inputs) => {
      const { aux, grads } = valueAndGradients(arenas.params, (p) => {
        const y = op(p, inputs);
        const c = Float32Array.from({ length: y.size }, (_, i) => Math.sin(1.3 * i + 0.4));
        return { loss: tf.sum(tf.mul(y, tf.tensor(c, y.shape))), aux: { y } };
      });
      const named = Object.entries(grads).map(([name, grad]) => [`d${name}`, grad] as const);
      return { outputs: { y: aux.y, ...Object.fromEntries(named) } };
    },
  };
}
