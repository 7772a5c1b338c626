import * as tf from "@tensorflow/tfjs";
import type { Tensor } from "@tensorflow/tfjs";
import { activeTrace, type TraceBackend } from "../trace/backend.js";
import { fusedOp } from "./fused-op.js";

export interface HeadLogprobs {
  /** `[N]` log π(label). Differentiable in x and w. */
  readonly logprobs: Tensor;
  /** `[N]` entropy of π in nats; a metric, its gradient is zero. Costs nothing when it is not used under onnx. */
  readonly entropy: Tensor;
}

/**
 * Language-model head and log-probability of given tokens in one op: the `[N, V]` logits never leave it.
 *
 *   π = softmax(x·wᵀ / temperature)      logprobs_n = log π_n(labels_n)      entropy_n = −Σ_v π_n(v) log π_n(v)
 *
 * @param x `[N, D]`  @param w `[V, D]`  @param labels int32 `[N]`; values outside [0, V) are clamped into it
 * @param temperature > 0
 */
export function headLogprobs(x: Tensor, w: Tensor, labels: Tensor, temperature: number): HeadLogprobs {
  const trace = activeTrace();
  if (trace !== null) return fusedHeadLogprobs(trace, x, w, labels, temperature);
  const vocabulary = w.shape[0];
  const logPolicy = tf.logSoftmax(tf.mul(tf.matMul(x, w, false, true), 1 / temperature));
  const inRange = tf.clipByValue(labels, 0, vocabulary - 1).toInt() as tf.Tensor1D;
  return {
    logprobs: tf.sum(tf.mul(logPolicy, tf.oneHot(inRange, vocabulary).toFloat()), -1),
    entropy: withoutGradient(tf.neg(tf.sum(tf.mul(tf.exp(logPolicy), logPolicy), -1))),
  };
}

/** The same values, seen by autodiff as a constant. */
export function withoutGradient(x: Tensor): Tensor {
  return tf.customGrad((value: unknown) => ({
    value: tf.clone(value as Tensor),
    gradFunc: (dy: Tensor) => [tf.zerosLike(dy)],
  }))(x);
}

/** d logits = (onehot − π)·dy / temperature, with π − onehot made by scattering −1 into exp(log π). */
function fusedHeadLogprobs(
  trace: TraceBackend,
  x: Tensor,
  w: Tensor,
  labels: Tensor,
  temperature: number,
): HeadLogprobs {
  const [tokens, vocabulary] = [x.shape[0], w.shape[0]];
  const { graph } = trace;
  const alpha = 1 / temperature;
  const logits = graph.matMul(trace.name(x), trace.name(w), { transB: true, alpha });
  const logPolicy = graph.op("LogSoftmax", [logits], { axis: -1 });
  const inRange = graph.op("Clip", [trace.name(labels), graph.int(0), graph.int(vocabulary - 1)]);
  const at = graph.reshape(graph.cast(inRange, "int64"), [tokens, 1]);

  const logprobs = fusedOp(trace, [x, w], (_graph, [xName, wName]) => ({
    value: graph.reshape(graph.op("GatherElements", [logPolicy, at], { axis: 1 }), [tokens]),
    shape: [tokens],
    gradients: (dy) => {
      const policy = graph.op("Exp", [logPolicy]);
      const minusOne = graph.fill(-1, "float32", [tokens, 1]);
      const error = graph.op("ScatterElements", [policy, at, minusOne], { axis: 1, reduction: "add" });
      const weight = graph.reshape(graph.op("Neg", [dy]), [tokens, 1]);
      return [
        graph.op("Mul", [graph.matMul(error, wName, { alpha }), weight]),
        graph.matMul(error, graph.op("Mul", [xName, weight]), { transA: true, alpha }),
      ];
    },
  }));
  const plogp = graph.op("Mul", [graph.op("Exp", [logPolicy]), logPolicy]);
  const entropy = graph.op("Neg", [graph.reduceSum(plogp, [-1], false)]);
  return { logprobs, entropy: trace.tensor(entropy, [tokens]) };
}
