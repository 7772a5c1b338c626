/** Typed arrays ↔ `bytes` columns (little-endian, packed). Every other codec goes through these. */
import { endianness } from "node:os";
import { protocolError } from "../../shared/errors.js";

if (endianness() !== "LE") throw new Error("troupe's wire format is little-endian; this machine is not");

type ColumnArray = Int32Array | Uint32Array | Float32Array | Float64Array;
type ColumnConstructor<T extends ColumnArray> = {
  new (buffer: ArrayBuffer): T;
  readonly BYTES_PER_ELEMENT: number;
};

/** A view of the array's bytes; not copied, so the array must not change before the message is serialised. */
export function toColumn(values: ColumnArray | Uint8Array): Buffer {
  return Buffer.from(values.buffer, values.byteOffset, values.byteLength);
}

function fromColumn<T extends ColumnArray>(
  type: ColumnConstructor<T>,
  bytes: Uint8Array,
  field: string,
  length?: number,
): T {
  const size = type.BYTES_PER_ELEMENT;
  if (bytes.byteLength % size !== 0 || (length !== undefined && bytes.byteLength !== length * size)) {
    const expected = length === undefined ? `a multiple of ${size}` : `${length * size}`;
    throw protocolError(`${field}: expected ${expected} bytes, got ${bytes.byteLength}`);
  }
  // gRPC hands out slices of pooled buffers: copy, which also aligns.
  const copy = new ArrayBuffer(bytes.byteLength);
  new Uint8Array(copy).set(bytes);
  return new type(copy);
}

export const int32Column = (bytes: Uint8Array, field: string, length?: number): Int32Array =>
  fromColumn(Int32Array, bytes, field, length);
export const uint32Column = (bytes: Uint8Array, field: string, length?: number): Uint32Array =>
  fromColumn(Uint32Array, bytes, field, length);
export const float32Column = (bytes: Uint8Array, field: string, length?: number): Float32Array =>
  fromColumn(Float32Array, bytes, field, length);
export const float64Column = (bytes: Uint8Array, field: string, length?: number): Float64Array =>
  fromColumn(Float64Array, bytes, field, length);

export function uint8Column(bytes: Uint8Array, field: string, length?: number): Uint8Array {
  if (length !== undefined && bytes.byteLength !== length) {
    throw protocolError(`${field}: expected ${length} bytes, got ${bytes.byteLength}`);
  }
  return Uint8Array.from(bytes);
}

export const isAllFinite = (values: Float32Array): boolean => {
  for (let i = 0; i < values.length; i++) if (!Number.isFinite(values[i])) return false;
  return true;
};

const sum = (lengths: Uint32Array): number => lengths.reduce((total, length) => total + length, 0);

/** Concatenates rows into one column, remembering their lengths. */
export function toRagged<T extends Int32Array | Float32Array | Uint8Array>(
  rows: readonly T[],
  type: { new (length: number): T },
): { lengths: Uint32Array; values: T } {
  const lengths = Uint32Array.from(rows, (row) => row.length);
  const values = new type(sum(lengths));
  let offset = 0;
  for (const row of rows) {
    (values as Int32Array).set(row as Int32Array, offset);
    offset += row.length;
  }
  return { lengths, values };
}

/** Cuts a concatenated column back into rows (views of `values`). */
export function fromRagged<T extends Int32Array | Float32Array | Uint8Array>(
  values: T,
  lengths: Uint32Array,
  field: string,
): T[] {
  if (sum(lengths) !== values.length)
    throw protocolError(`${field}: lengths add up to ${sum(lengths)}, got ${values.length} elements`);
  let offset = 0;
  return Array.from(lengths, (length) => {
    const row = values.subarray(offset, offset + length) as T;
    offset += length;
    return row;
  });
}
