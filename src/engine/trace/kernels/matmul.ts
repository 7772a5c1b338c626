import * as tf from "@tensorflow/tfjs";
import type { Kernel, Kernels } from "./kernel.js";

const batchMatMul: Kernel = (trace, { a, b }, attrs) => {
  const { transposeA, transposeB } = attrs as { transposeA: boolean; transposeB: boolean };
  const rank = a.shape.length;
  const rows = a.shape[rank - (transposeA ? 1 : 2)];
  const columns = b.shape[b.shape.length - (transposeB ? 2 : 1)];
  const batch = tf.broadcast_util.assertAndGetBroadcastShape(a.shape.slice(0, -2), b.shape.slice(0, -2));
  const options = { transA: transposeA, transB: transposeB, rank };
  const name = trace.graph.matMul(trace.name(a), trace.name(b), options);
  return trace.info(name, [...batch, rows, columns], "float32");
};

export const matMulKernels: Kernels = { BatchMatMul: batchMatMul };
