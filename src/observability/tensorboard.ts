/**
 * TensorBoard event files: TFRecord framing around Event protocol buffers, scalars only.
 *
 *   record = length u64le · maskedCrc32c(length) u32le · data · maskedCrc32c(data) u32le
 *   Event  { 1 wall_time double; 2 step int64; 3 file_version string; 5 summary { 1 value { 1 tag; 2 simple_value } } }
 *
 * @see tensorflow/core/lib/io/record_writer.cc, tensorflow/core/util/event.proto
 */

/** Reflected Castagnoli polynomial. */
const CRC32C_POLYNOMIAL = 0x82f63b78;
const CRC32C_TABLE = Uint32Array.from({ length: 256 }, (_unused, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ CRC32C_POLYNOMIAL : crc >>> 1;
  return crc;
});

/** CRC-32C (Castagnoli) of bytes, unsigned; `crc32c("123456789") === 0xe3069283`. */
export function crc32c(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = CRC32C_TABLE[(crc ^ byte) & 0xff] ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}

/** TFRecord's mask: rotate right by 15 bits, add a constant, so that a CRC of data holding CRCs stays meaningful. */
export function maskCrc(crc: number): number {
  return (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0;
}

/** One framed record. */
export function encodeRecord(data: Uint8Array): Buffer {
  const record = Buffer.alloc(12 + data.length + 4);
  record.writeBigUInt64LE(BigInt(data.length), 0);
  record.writeUInt32LE(maskCrc(crc32c(record.subarray(0, 8))), 8);
  record.set(data, 12);
  record.writeUInt32LE(maskCrc(crc32c(data)), 12 + data.length);
  return record;
}

/** The first event of every file. */
export function encodeFileVersion(wallTimeSeconds: number): Buffer {
  return Buffer.concat([doubleField(1, wallTimeSeconds), bytesField(3, Buffer.from("brain.Event:2"))]);
}

/**
 * One event with several scalars at the same step.
 * @param step non-negative integer
 * @param scalars tag → value, stored as float32; NaN and infinities are kept, TensorBoard shows them as gaps
 */
export function encodeScalars(
  wallTimeSeconds: number,
  step: number,
  scalars: Readonly<Record<string, number>>,
): Buffer {
  const values = Object.entries(scalars).map(([tag, value]) =>
    bytesField(1, Buffer.concat([bytesField(1, Buffer.from(tag)), floatField(2, value)])),
  );
  return Buffer.concat([
    doubleField(1, wallTimeSeconds),
    Buffer.concat([fieldKey(2, 0), varint(step)]),
    bytesField(5, Buffer.concat(values)),
  ]);
}

function varint(value: number): Buffer {
  const bytes: number[] = [];
  let rest = BigInt(value);
  do {
    const low = Number(rest & 0x7fn);
    rest >>= 7n;
    bytes.push(rest > 0n ? low | 0x80 : low);
  } while (rest > 0n);
  return Buffer.from(bytes);
}

function fieldKey(field: number, wireType: 0 | 1 | 2 | 5): Buffer {
  return varint(field * 8 + wireType);
}

function doubleField(field: number, value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeDoubleLE(value);
  return Buffer.concat([fieldKey(field, 1), bytes]);
}

function floatField(field: number, value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeFloatLE(value);
  return Buffer.concat([fieldKey(field, 5), bytes]);
}

function bytesField(field: number, value: Buffer): Buffer {
  return Buffer.concat([fieldKey(field, 2), varint(value.length), value]);
}
