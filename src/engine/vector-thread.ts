/** Entry of a `VectorPool` thread: its part of a pass over vectors in shared memory. */
import {
  adamwInPlace,
  squaresOfBlocks,
  type AdamwScalars,
  type AdamwVectors,
} from "./wasm/vector-kernels.js";

export { squaresOfBlocks };

export function adamw(part: { readonly vectors: AdamwVectors; readonly scalars: AdamwScalars }): void {
  adamwInPlace(part.vectors, part.scalars);
}
