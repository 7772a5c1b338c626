import type { DataType, TensorInfo } from "@tensorflow/tfjs";
import { sizeOf } from "../../layout.js";
import type { TraceBackend } from "../backend.js";
import type { Kernel, Kernels } from "./kernel.js";

type Fillable = "float32" | "int32" | "bool";

const filled = (trace: TraceBackend, value: number, shape: number[], dtype: DataType): TensorInfo =>
  trace.info(trace.graph.fill(value, dtype as Fillable, shape), shape, dtype);

/** Values known while tracing stay constants until something uses them. */
const constant = (
  trace: TraceBackend,
  values: Float32Array | Int32Array,
  shape: number[],
  dtype: DataType,
): TensorInfo => ({ dataId: trace.write(values, shape, dtype), shape, dtype });

const range: Kernel = (trace, _inputs, attrs) => {
  const { start, stop, step, dtype } = attrs as {
    start: number;
    stop: number;
    step: number;
    dtype: DataType;
  };
  const length = Math.max(0, Math.ceil((stop - start) / step));
  const values = dtype === "int32" ? new Int32Array(length) : new Float32Array(length);
  for (let i = 0; i < length; i++) values[i] = start + i * step;
  return constant(trace, values, [length], dtype);
};

const fill: Kernel = (trace, _inputs, attrs) => {
  const { shape, value, dtype = "float32" } = attrs as { shape: number[]; value: number; dtype?: DataType };
  // One element is worth keeping as a constant: constants are shared.
  if (sizeOf(shape) === 1 && dtype === "float32")
    return constant(trace, Float32Array.of(value), shape, dtype);
  return filled(trace, value, shape, dtype);
};

export const creationKernels: Kernels = {
  ZerosLike: (trace, { x }) => filled(trace, 0, x.shape, x.dtype),
  OnesLike: (trace, { x }) => filled(trace, 1, x.shape, x.dtype),
  Fill: fill,
  Range: range,
};
