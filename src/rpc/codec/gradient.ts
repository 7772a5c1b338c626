/** Gradient buckets on the wire: float32, or bfloat16 (round to nearest even) at half the bytes; sums are always float32. */
import { float32Column, toColumn } from "./columns.js";
import { protocolError } from "../../shared/errors.js";

export type WireFormat = "f32" | "bf16";

export function encodeGradient(values: Float32Array, wire: WireFormat): Buffer {
  if (wire === "f32") return toColumn(values);
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const halves = new Uint16Array(values.length);
  for (let i = 0; i < bits.length; i++) {
    const x = bits[i];
    const isNan = (x & 0x7fffffff) > 0x7f800000;
    halves[i] = isNan ? (x >>> 16) | 0x40 : (x + 0x7fff + ((x >>> 16) & 1)) >>> 16;
  }
  return Buffer.from(halves.buffer);
}

export function decodeGradient(
  bytes: Uint8Array,
  wire: WireFormat,
  length: number,
  field: string,
): Float32Array {
  if (wire === "f32") return float32Column(bytes, field, length);
  if (bytes.byteLength !== length * 2)
    throw protocolError(`${field}: expected ${length * 2} bytes, got ${bytes.byteLength}`);
  const bits = new Uint32Array(length);
  for (let i = 0; i < length; i++) bits[i] = (bytes[2 * i] | (bytes[2 * i + 1] << 8)) << 16;
  return new Float32Array(bits.buffer);
}
