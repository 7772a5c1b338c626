import * as tf from "@tensorflow/tfjs";
import type { Tensor, TensorInfo } from "@tensorflow/tfjs";
import { sizeOf } from "../../layout.js";
import type { TraceBackend } from "../backend.js";
import { axisIndex, type Kernel, type Kernels } from "./kernel.js";

function reshaped(trace: TraceBackend, x: TensorInfo, shape: number[]): TensorInfo {
  if (tf.util.arraysEqual(shape, x.shape)) return trace.alias(x);
  return trace.info(trace.graph.reshape(trace.name(x), shape), shape, x.dtype);
}

const transpose: Kernel = (trace, { x }, attrs) => {
  const perm = attrs.perm as number[];
  // tfjs' gather gradient asks for identity permutations of whole embedding tables.
  if (perm.every((axis, i) => axis === i)) return trace.alias(x);
  return trace.info(
    trace.graph.transpose(trace.name(x), perm),
    perm.map((axis) => x.shape[axis]),
    x.dtype,
  );
};

const expandDims: Kernel = (trace, { input }, attrs) => {
  const shape = [...input.shape];
  shape.splice(axisIndex(attrs.dim as number, shape.length + 1), 0, 1);
  return reshaped(trace, input, shape);
};

const concat: Kernel = (trace, inputs, attrs) => {
  const parts = Object.values(inputs);
  const [axis] = tf.util.parseAxisParam(attrs.axis as number, parts[0].shape);
  const shape = [...parts[0].shape];
  shape[axis] = parts.reduce((total, part) => total + part.shape[axis], 0);
  const names = parts.map((part) => trace.name(part));
  return trace.info(trace.graph.op("Concat", names, { axis }), shape, parts[0].dtype);
};

const pack: Kernel = (trace, inputs, attrs) => {
  const parts = Object.values(inputs);
  const axis = axisIndex(attrs.axis as number, parts[0].shape.length + 1);
  const slice = [...parts[0].shape];
  slice.splice(axis, 0, 1);
  const shape = slice.map((dim, i) => (i === axis ? parts.length : dim));
  const names = parts.map((part) => trace.graph.reshape(trace.name(part), slice));
  return trace.info(trace.graph.op("Concat", names, { axis }), shape, parts[0].dtype);
};

function split(trace: TraceBackend, x: TensorInfo, sizes: number[], axis: number): string[] {
  const inputs = [trace.name(x), trace.graph.int64s(sizes)];
  return trace.graph.emit("Split", inputs, sizes.length, { axis });
}

const unpack: Kernel = (trace, { value }, attrs) => {
  const axis = axisIndex(attrs.axis as number, value.shape.length);
  const shape = value.shape.filter((_, i) => i !== axis);
  const sizes = new Array<number>(value.shape[axis]).fill(1);
  return split(trace, value, sizes, axis).map((name) =>
    trace.info(trace.graph.reshape(name, shape), shape, value.dtype),
  );
};

const splitV: Kernel = (trace, { x }, attrs) => {
  const { numOrSizeSplits, axis } = attrs as { numOrSizeSplits: number | number[]; axis: number };
  const [along] = tf.util.parseAxisParam(axis, x.shape);
  const sizes = tf.backend_util.prepareSplitSize(x as Tensor, numOrSizeSplits, along);
  return split(trace, x, sizes, along).map((name, part) =>
    trace.info(
      name,
      x.shape.map((dim, i) => (i === along ? sizes[part] : dim)),
      x.dtype,
    ),
  );
};

const slice: Kernel = (trace, { x }, attrs) => {
  const { begin, size } = attrs as { begin: number | number[]; size: number | number[] };
  const [start, extent] = tf.slice_util.parseSliceParams(x, begin, size);
  const { graph } = trace;
  const end = start.map((at, i) => at + extent[i]);
  const axes = graph.int64s(start.map((_, i) => i));
  return trace.info(
    graph.op("Slice", [trace.name(x), graph.int64s(start), graph.int64s(end), axes]),
    extent,
    x.dtype,
  );
};

interface StridedSliceAttrs {
  begin: number[];
  end: number[];
  strides: number[];
  beginMask: number;
  endMask: number;
  ellipsisMask: number;
  newAxisMask: number;
  shrinkAxisMask: number;
}

const stridedSlice: Kernel = (trace, { x }, attrs) => {
  const a = attrs as unknown as StridedSliceAttrs;
  const masks = [a.beginMask, a.endMask, a.ellipsisMask, a.newAxisMask, a.shrinkAxisMask] as const;
  const info = tf.slice_util.sliceInfo(x.shape, a.begin, a.end, a.strides, ...masks);
  const { graph } = trace;
  // A backward slice that includes element 0 ends at −1, which ONNX would read as "the last element".
  const end = info.end.map((at, i) => (info.strides[i] < 0 && at < 0 ? -(2 ** 31) : at));
  const axes = info.begin.map((_, i) => i);
  const inputs = [
    trace.name(x),
    ...[info.begin, end, axes, info.strides].map((values) => graph.int64s(values)),
  ];
  const name = graph.reshape(graph.op("Slice", inputs), info.finalShape);
  return trace.info(name, info.finalShape, x.dtype);
};

const reverse: Kernel = (trace, { x }, attrs) => {
  const axes = tf.util.parseAxisParam(attrs.dims as number[], x.shape);
  const { graph } = trace;
  const each = (value: number) => graph.int64s(axes.map(() => value));
  const name = graph.op("Slice", [trace.name(x), each(-1), each(-(2 ** 31)), graph.int64s(axes), each(-1)]);
  return trace.info(name, x.shape, x.dtype);
};

const pad: Kernel = (trace, { x }, attrs) => {
  const { paddings, constantValue } = attrs as { paddings: [number, number][]; constantValue: number };
  const { graph } = trace;
  const value = x.dtype === "int32" ? graph.int(constantValue) : graph.float(constantValue);
  const pads = graph.int64s([...paddings.map(([before]) => before), ...paddings.map(([, after]) => after)]);
  const shape = x.shape.map((dim, i) => dim + paddings[i][0] + paddings[i][1]);
  return trace.info(graph.op("Pad", [trace.name(x), pads, value]), shape, x.dtype);
};

const tile: Kernel = (trace, { x }, attrs) => {
  const reps = attrs.reps as number[];
  const shape = x.shape.map((dim, i) => dim * reps[i]);
  return trace.info(trace.graph.op("Tile", [trace.name(x), trace.graph.int64s(reps)]), shape, x.dtype);
};

export const shapeKernels: Kernels = {
  Identity: (trace, { x }) => trace.alias(x),
  Reshape: (trace, { x }, attrs) =>
    reshaped(trace, x, tf.util.inferFromImplicitShape(attrs.shape as number[], sizeOf(x.shape))),
  ExpandDims: expandDims,
  Transpose: transpose,
  Concat: concat,
  Pack: pack,
  Unpack: unpack,
  SplitV: splitV,
  Slice: slice,
  StridedSlice: stridedSlice,
  Reverse: reverse,
  PadV2: pad,
  Tile: tile,
  BroadcastTo: (trace, { x }, attrs) => {
    const shape = attrs.shape as number[];
    return trace.info(trace.graph.op("Expand", [trace.name(x), trace.graph.int64s(shape)]), shape, x.dtype);
  },
};
