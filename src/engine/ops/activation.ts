import * as tf from "@tensorflow/tfjs";
import type { Tensor } from "@tensorflow/tfjs";
import { activeTrace } from "../trace/backend.js";
import type { GraphBuilder } from "../trace/graph.js";
import { fusedOp } from "./fused-op.js";

/** "gelu_new" is GPT-2's tanh approximation; "gelu" the exact erf form; "silu" is x·σ(x). */
export type ActivationKind = "gelu_new" | "gelu" | "relu" | "silu";

/**
 * y = f(x + b), f one of `ActivationKind`.
 *
 *   gelu_new: ½u(1 + tanh(√(2/π)(u + 0.044715u³)))    gelu: ½u(1 + erf(u/√2))    silu: u·σ(u)
 *
 * @param x `[N, F]`  @param bias `[F]` or null
 * @returns `[N, F]`
 */
export function biasActivation(x: Tensor, bias: Tensor | null, kind: ActivationKind): Tensor {
  const trace = activeTrace();
  if (trace !== null) {
    return fusedOp(trace, bias === null ? [x] : [x, bias], (graph, values) => {
      const { value, derivative } = FUSED[kind](graph, values);
      return {
        value,
        shape: x.shape,
        gradients: (dy) => {
          const dx = graph.op("Mul", [dy, derivative()]);
          return bias === null ? [dx] : [dx, graph.reduceSum(dx, [0], false)];
        },
      };
    });
  }
  const u = bias === null ? x : tf.add(x, bias);
  switch (kind) {
    case "gelu_new": {
      const inner = tf.mul(GELU_SCALE, tf.add(u, tf.mul(GELU_CUBIC, tf.mul(u, tf.square(u)))));
      return tf.mul(tf.mul(0.5, u), tf.add(1, tf.tanh(inner)));
    }
    case "gelu":
      return tf.mul(tf.mul(0.5, u), tf.add(1, tf.erf(tf.mul(u, Math.SQRT1_2))));
    case "relu":
      return tf.relu(u);
    case "silu":
      return tf.mul(u, tf.sigmoid(u));
  }
}

/** √(2/π) and 0.044715: Hendrycks & Gimpel 2016, arXiv:1606.08415. */
const GELU_SCALE = Math.sqrt(2 / Math.PI);
const GELU_CUBIC = 0.044715;

interface FusedActivation {
  readonly value: string;
  /** f′(u), asked for only when a gradient is. */
  readonly derivative: () => string;
}

type FusedBuilder = (graph: GraphBuilder, values: readonly string[]) => FusedActivation;

const sum = (graph: GraphBuilder, values: readonly string[]): string =>
  values.length === 1 ? values[0] : graph.op("Add", values);

/** tanh(z) = 2σ(2z) − 1 turns the tanh form into u·σ(u·(k + p)), p = a·u²: f′ = s + (y − y·s)(k + 3p). */
const geluTanh: FusedBuilder = (graph, values) => {
  const value = graph.microsoftOp("FastGelu", values);
  return {
    value,
    derivative: () => {
      const k = 2 * GELU_SCALE;
      const u = sum(graph, values);
      const p = graph.op("Mul", [graph.op("Mul", [u, u]), graph.float(k * GELU_CUBIC)]);
      const s = graph.op("Sigmoid", [graph.op("Mul", [graph.op("Add", [p, graph.float(k)]), u])]);
      const slope = graph.op("Add", [graph.op("Mul", [p, graph.float(3)]), graph.float(k)]);
      const rest = graph.op("Mul", [graph.op("Sub", [value, graph.op("Mul", [value, s])]), slope]);
      return graph.op("Add", [s, rest]);
    },
  };
};

/** f = u·Φ(u), f′ = Φ(u) + u·φ(u), Φ and φ of the standard normal. */
const geluErf: FusedBuilder = (graph, values) => {
  const u = sum(graph, values);
  const erf = graph.op("Erf", [graph.op("Mul", [u, graph.float(Math.SQRT1_2)])]);
  const cdf = graph.op("Mul", [graph.op("Add", [erf, graph.float(1)]), graph.float(0.5)]);
  return {
    value: graph.op("Mul", [u, cdf]),
    derivative: () => {
      const exponent = graph.op("Mul", [graph.op("Mul", [u, u]), graph.float(-0.5)]);
      const density = graph.op("Mul", [graph.op("Exp", [exponent]), graph.float(1 / Math.sqrt(2 * Math.PI))]);
      return graph.op("Add", [cdf, graph.op("Mul", [u, density])]);
    },
  };
};

const relu: FusedBuilder = (graph, values) => {
  const value = graph.op("Relu", [sum(graph, values)]);
  return {
    value,
    derivative: () => graph.cast(graph.op("Greater", [value, graph.float(0)]), "float32"),
  };
};

/** f = u·s, f′ = s + f·(1 − s). */
const silu: FusedBuilder = (graph, values) => {
  const u = sum(graph, values);
  const s = graph.op("Sigmoid", [u]);
  const value = graph.op("Mul", [u, s]);
  return {
    value,
    derivative: () => graph.op("Add", [s, graph.op("Sub", [value, graph.op("Mul", [value, s])])]),
  };
};

const FUSED: Readonly<Record<ActivationKind, FusedBuilder>> = {
  gelu_new: geluTanh,
  gelu: geluErf,
  relu,
  silu,
};
