import * as tf from "@tensorflow/tfjs";
import type { TensorInfo } from "@tensorflow/tfjs";
import { TRACE_BACKEND, traceBackend, type TraceBackend } from "../backend.js";

export type Inputs = Readonly<Record<string, TensorInfo>>;
export type Attrs = Readonly<Record<string, unknown>>;

/** Records one tfjs kernel call. */
export type Kernel = (trace: TraceBackend, inputs: Inputs, attrs: Attrs) => TensorInfo | TensorInfo[];
/** By tfjs kernel name. */
export type Kernels = Readonly<Record<string, Kernel>>;

export function registerKernels(kernels: Kernels): void {
  for (const [kernelName, kernel] of Object.entries(kernels)) {
    tf.registerKernel({
      kernelName,
      backendName: TRACE_BACKEND,
      kernelFunc: ({ inputs, attrs }) => kernel(traceBackend(), inputs as Inputs, (attrs ?? {}) as Attrs),
    });
  }
}

/** A tfjs axis (may be negative) as an index into `rank` axes. */
export const axisIndex = (axis: number, rank: number): number => (axis < 0 ? axis + rank : axis);
