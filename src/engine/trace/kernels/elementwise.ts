import * as tf from "@tensorflow/tfjs";
import type { DataType, TensorInfo } from "@tensorflow/tfjs";
import type { TraceBackend } from "../backend.js";
import type { OnnxType } from "../graph.js";
import type { Kernel, Kernels } from "./kernel.js";

const broadcast = (a: TensorInfo, b: TensorInfo): number[] =>
  tf.broadcast_util.assertAndGetBroadcastShape(a.shape, b.shape);

/** One ONNX node over two broadcast operands. */
const binary =
  (op: string, dtype?: DataType): Kernel =>
  (trace, { a, b }) =>
    trace.info(trace.graph.op(op, [trace.name(a), trace.name(b)]), broadcast(a, b), dtype ?? a.dtype);

/** One ONNX node over one operand. */
const unary =
  (op: string, dtype?: DataType): Kernel =>
  (trace, { x }) =>
    trace.info(trace.graph.op(op, [trace.name(x)]), x.shape, dtype ?? x.dtype);

/** Several nodes over one operand. */
const composed =
  (build: (trace: TraceBackend, x: string) => string, dtype?: DataType): Kernel =>
  (trace, { x }) =>
    trace.info(build(trace, trace.name(x)), x.shape, dtype ?? x.dtype);

/**
 * a + b. When one side is a scatter-add onto zeros, scatters onto the other side instead: the gradient of a tied
 * embedding would otherwise fill and add a whole vocabulary-sized matrix.
 */
const add: Kernel = (trace, { a, b }) => {
  if (tf.util.arraysEqual(a.shape, b.shape)) {
    for (const [scattered, base] of [
      [a, b],
      [b, a],
    ]) {
      const scatter = trace.pendingScatter(scattered);
      if (scatter === undefined) continue;
      const { graph } = trace;
      const isFlat = a.shape.length === 2 && a.shape[1] === scatter.rest;
      const flat = isFlat ? trace.name(base) : graph.reshape(trace.name(base), [scatter.rows, scatter.rest]);
      const attributes = { axis: 0, reduction: "add" };
      const sum = graph.op("ScatterElements", [flat, scatter.indices, scatter.updates], attributes);
      return trace.info(isFlat ? sum : graph.reshape(sum, a.shape), a.shape, a.dtype);
    }
  }
  return binary("Add")(trace, { a, b }, {});
};

const floorDivide: Kernel = (trace, { a, b }) => {
  const quotient = trace.graph.op("Div", [trace.name(a), trace.name(b)]);
  if (a.dtype !== "int32") return trace.info(trace.graph.op("Floor", [quotient]), broadcast(a, b), a.dtype);
  // ONNX divides integers towards zero, tfjs towards minus infinity: step down where a remainder has the other sign.
  const { graph } = trace;
  const [x, y] = [trace.name(a), trace.name(b)];
  const remainder = graph.op("Sub", [x, graph.op("Mul", [quotient, y])]);
  const isNegative = graph.op("Less", [graph.op("Mul", [remainder, y]), graph.int(0)]);
  return trace.info(graph.op("Sub", [quotient, graph.cast(isNegative, "int32")]), broadcast(a, b), "int32");
};

const squaredDifference: Kernel = (trace, { a, b }) => {
  const difference = trace.graph.op("Sub", [trace.name(a), trace.name(b)]);
  return trace.info(trace.graph.op("Mul", [difference, difference]), broadcast(a, b), a.dtype);
};

const notEqual: Kernel = (trace, { a, b }) => {
  const equal = trace.graph.op("Equal", [trace.name(a), trace.name(b)]);
  return trace.info(trace.graph.op("Not", [equal]), broadcast(a, b), "bool");
};

const cast: Kernel = (trace, { x }, attrs) => {
  const dtype = attrs.dtype as DataType;
  if (dtype === x.dtype) return trace.alias(x);
  return trace.info(trace.graph.cast(trace.name(x), dtype as OnnxType), x.shape, dtype);
};

const clip: Kernel = (trace, { x }, attrs) => {
  const { clipValueMin, clipValueMax } = attrs as { clipValueMin: number; clipValueMax: number };
  const { graph } = trace;
  const bound = (value: number) => (x.dtype === "int32" ? graph.int(value) : graph.float(value));
  const name = graph.op("Clip", [trace.name(x), bound(clipValueMin), bound(clipValueMax)]);
  return trace.info(name, x.shape, x.dtype);
};

const select: Kernel = (trace, { condition, t, e }) => {
  const operands = [condition, t, e].map((operand) => trace.name(operand));
  return trace.info(trace.graph.op("Where", operands), t.shape, t.dtype);
};

/** 1 where x > 0, else alpha. */
const step: Kernel = (trace, { x }, attrs) => {
  const { graph } = trace;
  const isPositive = graph.op("Greater", [trace.name(x), graph.float(0)]);
  const name = graph.op("Where", [isPositive, graph.float(1), graph.float((attrs.alpha as number) || 0)]);
  return trace.info(name, x.shape, x.dtype);
};

/**
 * eˣ − 1, by its series to x⁸ where |x| < ½ (the rest is below 1e-8 of it): the difference would cancel there, and
 * k3 estimates of the KL and AdamW's bias corrections live there.
 */
const expm1 = composed(({ graph }, x) => {
  let series = graph.float(1);
  for (let n = 8; n >= 2; n--) {
    series = graph.op("Add", [
      graph.op("Mul", [graph.op("Mul", [series, x]), graph.float(1 / n)]),
      graph.float(1),
    ]);
  }
  const isSmall = graph.op("Less", [graph.op("Abs", [x]), graph.float(0.5)]);
  const difference = graph.op("Sub", [graph.op("Exp", [x]), graph.float(1)]);
  return graph.op("Where", [isSmall, graph.op("Mul", [series, x]), difference]);
});

/** log(1 + x), by its series to x⁹ where |x| < 0.1 (the rest is below 2e-10 of it): 1 + x would lose x's digits. */
const log1p = composed(({ graph }, x) => {
  let series = graph.float(1 / 9);
  for (let n = 8; n >= 1; n--) {
    const next = graph.float((n % 2 === 0 ? -1 : 1) / n);
    series = graph.op("Add", [graph.op("Mul", [series, x]), next]);
  }
  const isSmall = graph.op("Less", [graph.op("Abs", [x]), graph.float(0.1)]);
  const direct = graph.op("Log", [graph.op("Add", [x, graph.float(1)])]);
  return graph.op("Where", [isSmall, graph.op("Mul", [series, x]), direct]);
});

export const elementwiseKernels: Kernels = {
  Add: add,
  AddN: (trace, inputs) => {
    const [first, ...rest] = Object.values(inputs);
    return rest.reduce((sum, next) => add(trace, { a: sum, b: next }, {}) as TensorInfo, first);
  },
  Sub: binary("Sub"),
  Multiply: binary("Mul"),
  RealDiv: binary("Div"),
  FloorDiv: floorDivide,
  Maximum: binary("Max"),
  Minimum: binary("Min"),
  Pow: binary("Pow"),
  SquaredDifference: squaredDifference,
  Equal: binary("Equal", "bool"),
  NotEqual: notEqual,
  Greater: binary("Greater", "bool"),
  GreaterEqual: binary("GreaterOrEqual", "bool"),
  Less: binary("Less", "bool"),
  LessEqual: binary("LessOrEqual", "bool"),
  LogicalAnd: binary("And", "bool"),
  LogicalOr: binary("Or", "bool"),
  LogicalNot: unary("Not", "bool"),
  Exp: unary("Exp"),
  Expm1: expm1,
  Log: unary("Log"),
  Log1p: log1p,
  Sqrt: unary("Sqrt"),
  Rsqrt: composed(({ graph }, x) => graph.op("Reciprocal", [graph.op("Sqrt", [x])])),
  Square: composed(({ graph }, x) => graph.op("Mul", [x, x])),
  Reciprocal: unary("Reciprocal"),
  Neg: unary("Neg"),
  Abs: unary("Abs"),
  Sign: unary("Sign"),
  Floor: unary("Floor"),
  Ceil: unary("Ceil"),
  Round: unary("Round"),
  Sin: unary("Sin"),
  Cos: unary("Cos"),
  Tanh: unary("Tanh"),
  Erf: unary("Erf"),
  Sigmoid: unary("Sigmoid"),
  Softplus: unary("Softplus"),
  Relu: unary("Relu"),
  Relu6: composed(({ graph }, x) => graph.op("Clip", [x, graph.float(0), graph.float(6)])),
  Elu: unary("Elu"),
  IsNan: unary("IsNaN", "bool"),
  IsInf: unary("IsInf", "bool"),
  IsFinite: composed(
    ({ graph }, x) => graph.op("Not", [graph.op("Or", [graph.op("IsNaN", [x]), graph.op("IsInf", [x])])]),
    "bool",
  ),
  Cast: cast,
  ClipByValue: clip,
  Select: select,
  Step: step,
};
