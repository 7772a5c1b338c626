import * as tf from "@tensorflow/tfjs";
import type { Tensor } from "@tensorflow/tfjs";

/** "gelu_new" is GPT-2's tanh approximation; "gelu" the exact erf form; "silu" is x·σ(x). */
export type ActivationKind = "gelu_new" | "gelu" | "relu" | "silu";

/**
 * y = f(x + b), f one of `ActivationKind`.
 *
 *   gelu_new: ½u(1 + tanh(√(2/π)(u + 0.044715u³)))    gelu: ½u(1 + erf(u/√2))    silu: u·σ(u)
 *
 * @param x `[N, F]`  @param bias `[F]` or null
 * @returns `[N, F]`
 */
export function biasActivation(x: Tensor, bias: Tensor | null, kind: ActivationKind): Tensor {
  const u = bias === null ? x : tf.add(x, bias);
  switch (kind) {
    case "gelu_new": {
      const inner = tf.mul(Math.sqrt(2 / Math.PI), tf.add(u, tf.mul(0.044715, tf.mul(u, tf.square(u)))));
      return tf.mul(tf.mul(0.5, u), tf.add(1, tf.tanh(inner)));
    }
    case "gelu":
      return tf.mul(tf.mul(0.5, u), tf.add(1, tf.erf(tf.mul(u, Math.SQRT1_2))));
    case "relu":
      return tf.relu(u);
    case "silu":
      return tf.mul(u, tf.sigmoid(u));
  }
}
