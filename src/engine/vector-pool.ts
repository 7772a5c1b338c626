/**
 * Passes over long vectors on several threads. Each thread takes one contiguous part and computes every element as one
 * thread would, so the bits do not depend on their number.
 */
import { Piscina } from "piscina";
import { builtFile } from "../shared/paths.js";
import { hostMemory } from "./host-arena.js";
import {
  adamwInPlace,
  BLOCK,
  squaresOfBlocks,
  type AdamwScalars,
  type AdamwVectors,
} from "./wasm/vector-kernels.js";

/** Below this, handing a part to a thread costs more than computing it. */
const MIN_ELEMENTS = 1 << 18;

export class VectorPool {
  private constructor(
    private readonly threads: number,
    /** The threads besides the caller's. */
    private readonly helpers: Piscina | undefined,
  ) {}

  /** @param threads with 1, the caller's alone */
  static open(threads = 1): VectorPool {
    if (threads <= 1) return new VectorPool(1, undefined);
    const helpers = new Piscina({
      filename: builtFile("src/engine/vector-thread"),
      minThreads: threads - 1,
      maxThreads: threads - 1,
      idleTimeout: Infinity,
      recordTiming: false,
    });
    return new VectorPool(threads, helpers);
  }

  /** Memory that the threads of this pool can work on together; with one thread, memory of its own. */
  allocate(elements: number): Float32Array {
    return hostMemory(elements, this.threads > 1);
  }

  /** See `adamwInPlace`. Vectors that are not all in shared memory are left to the caller's thread. */
  async adamw(vectors: AdamwVectors, scalars: AdamwScalars): Promise<void> {
    const slice = (start: number, end: number): AdamwVectors => ({
      param: vectors.param.subarray(start, end),
      grad: vectors.grad.subarray(start, end),
      m: vectors.m.subarray(start, end),
      v: vectors.v.subarray(start, end),
    });
    const [own, ...others] = this.parts(Object.values(vectors) as Float32Array[]);
    const running = others.map(([start, end]) =>
      this.helpers!.run({ vectors: slice(start, end), scalars }, { name: "adamw" }),
    );
    adamwInPlace(slice(...own), scalars);
    await Promise.all(running);
  }

  /** Σ x², accumulated in float64 in a fixed order. */
  async sumOfSquares(values: Float32Array): Promise<number> {
    const [own, ...others] = this.parts([values]);
    const running = others.map(
      ([start, end]) =>
        this.helpers!.run(values.subarray(start, end), { name: "squaresOfBlocks" }) as Promise<Float64Array>,
    );
    const first = squaresOfBlocks(values.subarray(...own));
    let sum = 0;
    for (const blocks of [first, ...(await Promise.all(running))]) for (const square of blocks) sum += square;
    return sum;
  }

  async close(): Promise<void> {
    await this.helpers?.destroy();
  }

  /** Ranges of elements, whole blocks but for the last; the first is the caller's. */
  private parts(vectors: readonly Float32Array[]): [start: number, end: number][] {
    const { length } = vectors[0];
    const isShared = vectors.every(({ buffer }) => buffer instanceof SharedArrayBuffer);
    if (this.threads === 1 || !isShared || length < MIN_ELEMENTS) return [[0, length]];
    const size = BLOCK * Math.ceil(length / BLOCK / this.threads);
    return Array.from({ length: this.threads }, (_, i): [number, number] => [
      Math.min(length, i * size),
      Math.min(length, (i + 1) * size),
    ]);
  }
}
