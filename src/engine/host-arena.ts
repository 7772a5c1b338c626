import { shapeError } from "../shared/errors.js";
import type { Arena } from "./engine.js";
import type { Layout } from "./layout.js";

/** An arena in host memory: `read` returns the live values. */
export class HostArena implements Arena {
  /** Grows whenever the values are replaced; copies of them are good for one revision. */
  revision = 0;
  /** It will not be run with again. */
  isDisposed = false;

  constructor(
    readonly layout: Layout,
    initial?: Float32Array,
    readonly values = hostMemory(layout.size, false),
  ) {
    if (initial !== undefined) this.#copyFrom(initial);
  }

  /** An arena in the given memory. @throws {TroupeError} SHAPE unless it holds `layout.size` values */
  static over(layout: Layout, memory: Float32Array): HostArena {
    checkArenaLength(layout, memory);
    const { buffer, byteOffset, length } = memory; // asking for the buffer fixes the address, see `hostMemory`
    return new HostArena(layout, undefined, new Float32Array(buffer, byteOffset, length));
  }

  async read(): Promise<Float32Array> {
    return this.values;
  }

  async write(values: Float32Array): Promise<void> {
    this.#copyFrom(values);
  }

  async clear(): Promise<void> {
    this.values.fill(0);
    this.revision++;
  }

  dispose(): void {
    this.isDisposed = true;
  }

  #copyFrom(values: Float32Array): void {
    checkArenaLength(this.layout, values);
    if (values !== this.values) this.values.set(values);
    this.revision++;
  }
}

export function checkArenaLength(layout: Layout, values: Float32Array): void {
  if (values.length !== layout.size) {
    throw shapeError(
      `an arena of ${layout.entries.length} tensors holds ${layout.size} values, got ${values.length}`,
    );
  }
}

/**
 * Zero-filled memory with a fixed address. An explicit buffer: V8 may keep a small typed array's elements on its heap,
 * where native code that holds their address would lose them at the next garbage collection.
 *
 * @param isShared other threads get the memory itself instead of a copy
 */
export function hostMemory(elements: number, isShared: boolean): Float32Array {
  const bytes = 4 * elements;
  return new Float32Array(isShared ? new SharedArrayBuffer(bytes) : new ArrayBuffer(bytes));
}
