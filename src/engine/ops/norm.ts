import * as tf from "@tensorflow/tfjs";
import type { Tensor } from "@tensorflow/tfjs";
import { activeTrace } from "../trace/backend.js";
import type { GraphBuilder } from "../trace/graph.js";
import { fusedOp, type FusedResult } from "./fused-op.js";

/**
 * Layer normalisation over the last axis, population variance.
 *
 *   y = (x − mean(x)) / √(var(x) + ε) · γ + β
 *
 * @param x `[N, D]`  @param gamma `[D]`  @param beta `[D]`
 * @returns `[N, D]`
 * @see Ba et al. 2016, arXiv:1607.06450
 */
export function layerNorm(x: Tensor, gamma: Tensor, beta: Tensor, epsilon: number): Tensor {
  const trace = activeTrace();
  if (trace !== null) {
    return fusedOp(trace, [x, gamma, beta], (graph, values) =>
      fusedLayerNorm(graph, values, x.shape, epsilon),
    );
  }
  const centered = tf.sub(x, tf.mean(x, -1, true));
  const variance = tf.mean(tf.square(centered), -1, true);
  return tf.add(tf.mul(tf.mul(centered, tf.rsqrt(tf.add(variance, epsilon))), gamma), beta);
}

/**
 * Root-mean-square normalisation over the last axis.
 *
 *   y = x / √(mean(x²) + ε) · w
 *
 * @param x `[N, D]`  @param weight `[D]`
 * @returns `[N, D]`
 * @see Zhang & Sennrich 2019, arXiv:1910.07467
 */
export function rmsNorm(x: Tensor, weight: Tensor, epsilon: number): Tensor {
  const trace = activeTrace();
  if (trace !== null) {
    return fusedOp(trace, [x, weight], (graph, values) => fusedRmsNorm(graph, values, x.shape, epsilon));
  }
  const meanSquare = tf.mean(tf.square(x), -1, true);
  return tf.mul(tf.mul(x, tf.rsqrt(tf.add(meanSquare, epsilon))), weight);
}

/** dx = (dy·γ − mean(dy·γ) − x̂·mean(dy·γ·x̂)) / σ, with the means over D as products with γ/D. */
function fusedLayerNorm(
  graph: GraphBuilder,
  [x, gamma, beta]: readonly string[],
  shape: readonly number[],
  epsilon: number,
): FusedResult {
  const width = shape[1];
  const attributes = { axis: -1, epsilon: { float: epsilon } };
  const [value, mean, inverseDeviation] = graph.emit("LayerNormalization", [x, gamma, beta], 3, attributes);
  return {
    value,
    shape,
    gradients: (dy) => {
      const normalised = graph.op("Mul", [graph.op("Sub", [x, mean]), inverseDeviation]);
      const product = graph.op("Mul", [dy, normalised]);
      const column = graph.reshape(gamma, [width, 1]);
      const meanDy = graph.matMul(dy, column, { alpha: 1 / width });
      const meanProduct = graph.matMul(product, column, { alpha: 1 / width });
      const centered = graph.op("Sub", [graph.op("Mul", [dy, gamma]), meanDy]);
      const projected = graph.op("Sub", [centered, graph.op("Mul", [normalised, meanProduct])]);
      return [
        graph.op("Mul", [projected, inverseDeviation]),
        graph.reduceSum(product, [0], false),
        graph.reduceSum(dy, [0], false),
      ];
    },
  };
}

/** dx = (dy·w − x̂·mean(dy·w·x̂)) · r, with r = 1/√(mean(x²) + ε) and x̂ = x·r. */
function fusedRmsNorm(
  graph: GraphBuilder,
  [x, weight]: readonly string[],
  shape: readonly number[],
  epsilon: number,
): FusedResult {
  const width = shape[1];
  const attributes = { axis: -1, epsilon: { float: epsilon }, stash_type: 1 };
  const [value, inverseRms] = graph.emit("SimplifiedLayerNormalization", [x, weight], 2, attributes);
  return {
    value,
    shape,
    gradients: (dy) => {
      const normalised = graph.op("Mul", [x, inverseRms]);
      const product = graph.op("Mul", [dy, normalised]);
      const meanProduct = graph.matMul(product, graph.reshape(weight, [width, 1]), { alpha: 1 / width });
      const projected = graph.op("Sub", [
        graph.op("Mul", [dy, weight]),
        graph.op("Mul", [normalised, meanProduct]),
      ]);
      return [graph.op("Mul", [projected, inverseRms]), graph.reduceSum(product, [0], false)];
    },
  };
}
