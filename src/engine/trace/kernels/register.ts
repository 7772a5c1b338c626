import { creationKernels } from "./creation.js";
import { elementwiseKernels } from "./elementwise.js";
import { gatherKernels } from "./gather.js";
import { registerKernels } from "./kernel.js";
import { matMulKernels } from "./matmul.js";
import { reductionKernels } from "./reduction.js";
import { shapeKernels } from "./shape.js";

let isRegistered = false;

/** Teaches tfjs every kernel the trace backend records; a second call does nothing. */
export function registerTraceKernels(): void {
  if (isRegistered) return;
  isRegistered = true;
  registerKernels({
    ...creationKernels,
    ...elementwiseKernels,
    ...gatherKernels,
    ...matMulKernels,
    ...reductionKernels,
    ...shapeKernels,
  });
}
