import { shapeError } from "../shared/errors.js";

/** A named tensor inside a flat float32 memory. */
export interface LayoutEntry {
  readonly name: string;
  readonly shape: readonly number[];
  /** First element, counted in float32 elements. */
  readonly offset: number;
  /** Number of elements. */
  readonly size: number;
}

/**
 * Where every tensor of an arena lives. Entries are contiguous and sorted by name (code-unit order), which is also the order
 * of tensors in a safetensors file: an arena's bytes are that file's data section, with no reordering.
 */
export interface Layout {
  readonly entries: readonly LayoutEntry[];
  /** Total number of float32 elements. */
  readonly size: number;
  readonly byName: ReadonlyMap<string, LayoutEntry>;
}

export const sizeOf = (shape: readonly number[]): number => shape.reduce((product, dim) => product * dim, 1);

/** Builds a layout from tensor shapes by name. */
export function makeLayout(shapes: Readonly<Record<string, readonly number[]>>): Layout {
  let offset = 0;
  const entries = Object.keys(shapes)
    .sort()
    .map((name): LayoutEntry => {
      const shape = shapes[name];
      const entry = { name, shape, offset, size: sizeOf(shape) };
      offset += entry.size;
      return entry;
    });
  return { entries, size: offset, byName: new Map(entries.map((entry) => [entry.name, entry])) };
}

/** The part of `values` that belongs to `name`; a view, not a copy. */
export function viewOf(layout: Layout, values: Float32Array, name: string): Float32Array {
  const entry = layout.byName.get(name);
  if (entry === undefined)
    throw shapeError(`no tensor named ${name}; expected one of ${[...layout.byName.keys()].join(", ")}`);
  return values.subarray(entry.offset, entry.offset + entry.size);
}
