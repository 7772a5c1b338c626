import * as tf from "@tensorflow/tfjs";
import type { Tensor } from "@tensorflow/tfjs";
import { activeTrace } from "../trace/backend.js";
import { fusedOp } from "./fused-op.js";

export interface LinearOptions {
  /** true: `w` is `[M, K]` (Hugging Face nn.Linear); false: `[K, M]` (GPT-2's Conv1D). @default false */
  readonly weightIsOutIn?: boolean;
}

/**
 * Affine map: y = x·w + b (or x·wᵀ + b when `weightIsOutIn`).
 *
 * @param x `[N, K]`  @param w `[K, M]` or `[M, K]`  @param bias `[M]` or null
 * @returns `[N, M]`
 */
export function linear(x: Tensor, w: Tensor, bias: Tensor | null, options: LinearOptions = {}): Tensor {
  const isOutIn = options.weightIsOutIn ?? false;
  const trace = activeTrace();
  if (trace !== null) {
    const inputs = bias === null ? [x, w] : [x, w, bias];
    const shape = [x.shape[0], isOutIn ? w.shape[0] : w.shape[1]!];
    return fusedOp(trace, inputs, (graph, [xName, wName, biasName]) => ({
      value:
        biasName === undefined
          ? graph.matMul(xName, wName, { transB: isOutIn })
          : graph.op("Gemm", [xName, wName, biasName], { transB: isOutIn ? 1 : 0 }),
      shape,
      gradients: (dy) => {
        const dx = graph.matMul(dy, wName, { transB: !isOutIn });
        const dw = isOutIn
          ? graph.matMul(dy, xName, { transA: true })
          : graph.matMul(xName, dy, { transA: true });
        return biasName === undefined ? [dx, dw] : [dx, dw, graph.reduceSum(dy, [0], false)];
      },
    }));
  }
  const product = tf.matMul(x, w, false, isOutIn);
  return bias === null ? product : tf.add(product, bias);
}

/**
 * `linear` for the few rows of a decode step, without gradient: a row's result has the same bits whatever the other rows
 * hold, and for any number of rows where `w` is frozen, else from 1 to 16.
 *
 * @param x `[B, K]`  @param w `[K, M]` or, twice as fast, `[M, K]`  @param bias `[M]` or null
 * @returns `[B, M]`
 */
export function smallLinear(x: Tensor, w: Tensor, bias: Tensor | null, options: LinearOptions = {}): Tensor {
  const trace = activeTrace();
  // A frozen weight was packed when it was loaded: one kernel for any number of rows, and nothing to copy.
  if (trace === null || trace.graph.isFrozen(trace.name(w))) return linear(x, w, bias, options);
  if (!options.weightIsOutIn) {
    if (x.shape[0] > 1) return linear(x, w, bias);
    return tf.slice(linear(tf.concat([x, x], 0), w, bias), [0, 0], [1, w.shape[1]!]);
  }
  const { graph } = trace;
  // As left operand an [M, K] weight is read where it lies; as right operand it is packed into a copy first, which
  // for a few rows costs more than the product (0.31 against 1.5 ms for 8 × 768 × 3072 on two threads).
  const product = graph.matMul(trace.name(w), trace.name(x), { transB: true });
  const rows = graph.transpose(product, [1, 0]);
  const value = bias === null ? rows : graph.op("Add", [rows, trace.name(bias)]);
  return trace.tensor(value, [x.shape[0], w.shape[0]]);
}
