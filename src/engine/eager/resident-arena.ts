import * as tf from "@tensorflow/tfjs";
import type { Tensor } from "@tensorflow/tfjs";
import type { Arena, Tensors } from "../engine.js";
import { checkArenaLength } from "../host-arena.js";
import type { Layout } from "../layout.js";
import { withBackend } from "./backend-scope.js";

/** An arena whose tensors stay on a tfjs backend's device; `read` and `write` copy. */
export class ResidentArena implements Arena {
  readonly #tensors = new Map<string, Tensor>();

  constructor(
    readonly layout: Layout,
    private readonly backend: string,
    values?: Float32Array,
  ) {
    if (values === undefined) this.#zero();
    else {
      checkArenaLength(layout, values);
      this.#upload(values);
    }
  }

  get tensors(): Tensors {
    return Object.fromEntries(this.#tensors);
  }

  async read(): Promise<Float32Array> {
    const values = new Float32Array(this.layout.size);
    withBackend(this.backend, () => {
      for (const { name, offset } of this.layout.entries)
        values.set(this.#tensors.get(name)!.dataSync(), offset);
    });
    return values;
  }

  async write(values: Float32Array): Promise<void> {
    checkArenaLength(this.layout, values);
    this.#upload(values);
  }

  async clear(): Promise<void> {
    this.#zero();
  }

  /** Takes over `tensor`, which must outlive the current tidy, as the new value of `name`. */
  replace(name: string, tensor: Tensor): void {
    this.#tensors.get(name)?.dispose();
    this.#tensors.set(name, tensor);
  }

  dispose(): void {
    for (const tensor of this.#tensors.values()) tensor.dispose();
    this.#tensors.clear();
  }

  /** Made on the device: learners clear their gradients at every step. */
  #zero(): void {
    withBackend(this.backend, () => {
      for (const { name, shape } of this.layout.entries) this.replace(name, tf.keep(tf.fill([...shape], 0)));
    });
  }

  #upload(values: Float32Array): void {
    withBackend(this.backend, () => {
      for (const { name, offset, size, shape } of this.layout.entries) {
        // A copy: tfjs-node reads an array when an op first needs it.
        this.replace(name, tf.keep(tf.tensor(values.slice(offset, offset + size), [...shape])));
      }
    });
  }
}
