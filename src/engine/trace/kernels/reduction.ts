import * as tf from "@tensorflow/tfjs";
import type { TensorInfo } from "@tensorflow/tfjs";
import type { TraceBackend } from "../backend.js";
import { axisIndex, type Attrs, type Kernel, type Kernels } from "./kernel.js";

function reduced(trace: TraceBackend, op: string, x: TensorInfo, attrs: Attrs): TensorInfo {
  // tfjs names the axes of Max differently from those of all others.
  const { axis = attrs.reductionIndices, keepDims } = attrs as { axis?: unknown; keepDims?: boolean };
  const axes =
    axis === undefined || axis === null
      ? x.shape.map((_, i) => i)
      : tf.util.parseAxisParam(axis as number | number[], x.shape);
  if (axes.length === 0) return trace.alias(x);
  const shape = keepDims
    ? x.shape.map((dim, i) => (axes.includes(i) ? 1 : dim))
    : x.shape.filter((_, i) => !axes.includes(i));
  const { graph } = trace;
  // ONNX does not reduce booleans.
  const isBool = x.dtype === "bool";
  const input = isBool ? graph.cast(trace.name(x), "int32") : trace.name(x);
  const name = graph.op(op, [input, graph.int64s(axes)], { keepdims: keepDims ? 1 : 0 });
  return trace.info(name, shape, isBool ? "int32" : x.dtype);
}

const reduction =
  (op: string): Kernel =>
  (trace, { x }, attrs) =>
    reduced(trace, op, x, attrs);

const logicalReduction =
  (op: string): Kernel =>
  (trace, { x }, attrs) => {
    const result = reduced(trace, op, x, attrs);
    return trace.info(trace.graph.cast(trace.name(result), "bool"), result.shape, "bool");
  };

const argReduction =
  (op: string): Kernel =>
  (trace, { x }, attrs) => {
    const axis = axisIndex(attrs.axis as number, x.shape.length);
    const index = trace.graph.op(op, [trace.name(x)], { axis, keepdims: 0 });
    const shape = x.shape.filter((_, i) => i !== axis);
    return trace.info(trace.graph.cast(index, "int32"), shape, "int32");
  };

const cumulativeSum: Kernel = (trace, { x }, attrs) => {
  const { axis, exclusive, reverse } = attrs as { axis: number; exclusive: boolean; reverse: boolean };
  const attributes = { exclusive: exclusive ? 1 : 0, reverse: reverse ? 1 : 0 };
  const name = trace.graph.op("CumSum", [trace.name(x), trace.graph.int(axis)], attributes);
  return trace.info(name, x.shape, x.dtype);
};

const topK: Kernel = (trace, { x }, attrs) => {
  const { k, sorted } = attrs as { k: number; sorted: boolean };
  const { graph } = trace;
  const inputs = [trace.name(x), graph.int64s([k])];
  const [values, indices] = graph.emit("TopK", inputs, 2, { axis: -1, sorted: sorted ? 1 : 0 });
  const shape = [...x.shape.slice(0, -1), k];
  return [trace.info(values, shape, x.dtype), trace.info(graph.cast(indices, "int32"), shape, "int32")];
};

export const reductionKernels: Kernels = {
  Sum: reduction("ReduceSum"),
  Mean: reduction("ReduceMean"),
  Max: reduction("ReduceMax"),
  Min: reduction("ReduceMin"),
  Prod: reduction("ReduceProd"),
  All: logicalReduction("ReduceMin"),
  Any: logicalReduction("ReduceMax"),
  ArgMax: argReduction("ArgMax"),
  ArgMin: argReduction("ArgMin"),
  Cumsum: cumulativeSum,
  TopK: topK,
  Softmax: (trace, { logits }, attrs) =>
    trace.info(
      trace.graph.op("Softmax", [trace.name(logits)], { axis: attrs.dim as number }),
      logits.shape,
      "float32",
    ),
  LogSoftmax: (trace, { logits }, attrs) =>
    trace.info(
      trace.graph.op("LogSoftmax", [trace.name(logits)], { axis: attrs.axis as number }),
      logits.shape,
      "float32",
    ),
};
