/** Gradient buckets on the wire: float32, or bfloat16 (round to nearest even) at half the bytes. */
import { decodeBf16, encodeBf16 } from "../../kernels/gradient-kernels.js";
import { protocolError } from "../../shared/errors.js";
import { toColumn } from "./columns.js";

export type WireFormat = "f32" | "bf16";
export const BYTES_PER_ELEMENT = { f32: 4, bf16: 2 } as const;

/** With f32 a view of `values`: they must not change before the bytes are sent. */
export function encodeGradient(values: Float32Array, wire: WireFormat): Buffer {
  if (wire === "f32") return toColumn(values);
  const bytes = Buffer.allocUnsafe(2 * values.length);
  encodeBf16(values, bytes);
  return bytes;
}

/** Writes a bucket into `target`. @throws {TroupeError} PROTOCOL when it has another length */
export function decodeGradient(
  bytes: Uint8Array,
  wire: WireFormat,
  target: Float32Array,
  field: string,
): void {
  const expected = target.length * BYTES_PER_ELEMENT[wire];
  if (bytes.byteLength !== expected)
    throw protocolError(`${field}: expected ${expected} bytes, got ${bytes.byteLength}`);
  if (wire === "f32") toColumn(target).set(bytes);
  else decodeBf16(bytes, target);
}
