import * as tf from "@tensorflow/tfjs";
import type { Tensor } from "@tensorflow/tfjs";

/**
 * Rows of a table: y[n] = table[ids[n]]. Gradient: scatter-add of dy into the rows.
 *
 * @param table `[V, D]`  @param ids int32 `[N]`, each in [0, V)
 * @returns `[N, D]`
 */
export function embedding(table: Tensor, ids: Tensor): Tensor {
  return tf.gather(table, ids as tf.Tensor1D);
}
