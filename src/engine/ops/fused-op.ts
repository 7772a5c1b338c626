import * as tf from "@tensorflow/tfjs";
import type { Tensor } from "@tensorflow/tfjs";
import type { TraceBackend } from "../trace/backend.js";
import type { GraphBuilder } from "../trace/graph.js";

export interface FusedResult {
  /** Graph value of the result. */
  readonly value: string;
  readonly shape: readonly number[];
  /** From the graph value of dy: one gradient per input, of the input's shape. Unused ones cost nothing. */
  readonly gradients: (dy: string) => readonly string[];
}

/**
 * A differentiable op given directly as graph nodes, forward and backward, while a program is traced.
 *
 * @param build gets the graph and the graph values of `inputs`
 */
export function fusedOp(
  trace: TraceBackend,
  inputs: readonly Tensor[],
  build: (graph: GraphBuilder, values: readonly string[]) => FusedResult,
): Tensor {
  const op = tf.customGrad(() => {
    const { value, shape, gradients } = build(
      trace.graph,
      inputs.map((input) => trace.name(input)),
    );
    return {
      value: trace.tensor(value, shape),
      gradFunc: (dy: Tensor) =>
        gradients(trace.name(dy)).map((name, i) => trace.tensor(name, inputs[i].shape)),
    };
  });
  return op(...inputs);
}
