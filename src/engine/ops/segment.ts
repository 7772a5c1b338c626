import type { Tensor } from "@tensorflow/tfjs";
import { activeTrace } from "../trace/backend.js";
import type { Segment } from "../trace/graph.js";
import { fusedOp } from "./fused-op.js";

export interface SegmentOptions {
  /** The backward pass computes inner values again instead of keeping them. @default false */
  readonly isRecomputed?: boolean;
}

/**
 * y = body(x), a part of the forward pass whose memory the onnx engine looks after (src/engine/trace/segments.ts): the
 * same numbers from less of it, when recomputed for one more forward pass of `body`. Eager engines just run `body`.
 *
 * @param body may also read tensors from outside, such as parameters; they stay where they are
 * @see Chen et al. 2016, arXiv:1604.06174
 */
export function segment(
  x: Tensor,
  body: (x: Tensor) => Tensor,
  { isRecomputed = false }: SegmentOptions = {},
): Tensor {
  const trace = activeTrace();
  if (trace === null) return body(x);
  const part: Segment = { input: trace.name(x), isRecomputed };
  const y = trace.graph.inSegment(part, () => body(x));
  part.output = trace.name(y);
  return fusedOp(trace, [y], (_graph, [value]) => ({
    value,
    shape: y.shape,
    gradients: (dy) => {
      part.outputGradient = dy;
      return [dy];
    },
  }));
}
