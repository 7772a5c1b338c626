import * as tf from "@tensorflow/tfjs";
import type { Tensor } from "@tensorflow/tfjs";

/** Cosines and sines of every position's angles, made once per forward pass by `rotaryTable`. */
export interface RotaryTable {
  /** `[B or 1, T, 1, E/2]` */
  readonly cos: Tensor;
  /** `[B or 1, T, 1, E/2]` */
  readonly sin: Tensor;
}

/** θ^(−2i/E) for i in [0, E/2): the angle per position of each dimension pair. */
export function inverseFrequencies(width: number, theta: number): Float32Array {
  return Float32Array.from({ length: width / 2 }, (_, i) => theta ** ((-2 * i) / width));
}

/**
 * @param positions int32 `[B, T]`, or `[T]` when all rows share them
 * @param frequencies `[E/2]` radians per position, see `inverseFrequencies`
 */
export function rotaryTable(positions: Tensor, frequencies: Float32Array): RotaryTable {
  const [rows, length] = positions.shape.length === 1 ? [1, positions.shape[0]] : positions.shape;
  const at = tf.reshape(tf.cast(positions, "float32"), [rows, length, 1, 1]);
  const angles = tf.mul(at, tf.tensor(frequencies, [1, 1, 1, frequencies.length]));
  return { cos: tf.cos(angles), sin: tf.sin(angles) };
}

/**
 * Rotary position embedding, Hugging Face's "rotate half" pairing: dimension i turns with dimension i + E/2.
 *
 *   y₁ = x₁·cos − x₂·sin      y₂ = x₂·cos + x₁·sin      x = [x₁ | x₂] along the last axis
 *
 * @param x `[B, T, H, E]`, E even (a decode step uses T = 1)
 * @returns `[B, T, H, E]`
 * @see Su et al. 2021, arXiv:2104.09864
 */
export function rotaryEmbedding(x: Tensor, table: RotaryTable): Tensor {
  // The table is an input, and saved, because tfjs frees what a loss function made before it runs backwards.
  const op = tf.customGrad((...args: unknown[]) => {
    const [input, cos, sin, save] = args as [Tensor, Tensor, Tensor, (tensors: Tensor[]) => void];
    save([cos, sin]);
    return {
      value: rotate(input, cos, sin),
      // A rotation's transpose is the rotation back.
      gradFunc: (dy: Tensor, [savedCos, savedSin]: Tensor[]) => [
        rotate(dy, savedCos, tf.neg(savedSin)),
        tf.zerosLike(savedCos),
        tf.zerosLike(savedSin),
      ],
    };
  });
  return op(x, table.cos, table.sin);
}

function rotate(x: Tensor, cos: Tensor, sin: Tensor): Tensor {
  const [first, second] = tf.split(x, 2, -1);
  return tf.concat(
    [tf.sub(tf.mul(first, cos), tf.mul(second, sin)), tf.add(tf.mul(second, cos), tf.mul(first, sin))],
    -1,
  );
}
