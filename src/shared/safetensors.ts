/**
 * The safetensors file format, in and out:
 *
 *   u64 header length (little-endian) | header: JSON object, space-padded | data
 *   header: { "__metadata__": {string: string}, name: {dtype, shape, data_offsets: [begin, end]} }
 *
 * Reading applies every check of the reference implementation (huggingface/safetensors, tensor.rs) before a single
 * tensor byte is read, so that a hostile file costs an error and never an allocation larger than itself (half-precision
 * files: twice that, as float32).
 */
import { constants } from "node:fs";
import { open, rename, rm, type FileHandle } from "node:fs/promises";
import { dataError, storageError, TroupeError } from "./errors.js";
import { isJsonObject, parseStrictJson, type Json } from "./strict-json.js";

/** Bytes per element of every dtype the format names. */
const DTYPE_BYTES: Readonly<Record<string, number>> = {
  BOOL: 1,
  U8: 1,
  I8: 1,
  F8_E5M2: 1,
  F8_E4M3: 1,
  I16: 2,
  U16: 2,
  F16: 2,
  BF16: 2,
  I32: 4,
  U32: 4,
  F32: 4,
  F64: 8,
  I64: 8,
  U64: 8,
};

/** The reference implementation's cap, in bytes. */
export const MAX_HEADER_BYTES = 100_000_000;
const CHUNK_BYTES = 1 << 24;

export interface TensorInfo {
  readonly name: string;
  readonly dtype: string;
  readonly shape: readonly number[];
  /** First byte, counted from the start of the data section. */
  readonly begin: number;
  /** One past the last byte. */
  readonly end: number;
}

export interface SafetensorsHeader {
  /** In file order (by `begin`). */
  readonly tensors: readonly TensorInfo[];
  readonly metadata: Readonly<Record<string, string>>;
  /** Where the data section starts in the file, bytes. */
  readonly dataStart: number;
}

/** A tensor to write: its place in a flat float32 memory follows from the order. */
export interface NamedShape {
  readonly name: string;
  readonly shape: readonly number[];
}

function elementsOf(shape: readonly number[], fail: (what: string) => never): number {
  let elements = 1;
  for (const dim of shape) {
    elements *= dim;
    if (!Number.isSafeInteger(elements)) fail(`shape [${shape.join(", ")}] overflows`);
  }
  return elements;
}

function isSize(value: Json | undefined): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0 && !Object.is(value, -0);
}

function parseTensorInfo(name: string, value: Json, source: string): TensorInfo {
  const fail = (what: string): never => {
    throw dataError(`${source}: tensor ${JSON.stringify(name)}: ${what}`);
  };
  if (!isJsonObject(value)) return fail("expected an object with dtype, shape and data_offsets");
  const { dtype, shape, data_offsets: offsets, ...unknown } = value;
  const unknownKeys = Object.keys(unknown);
  if (unknownKeys.length > 0) fail(`unknown field ${unknownKeys[0]}`);
  if (typeof dtype !== "string" || !Object.hasOwn(DTYPE_BYTES, dtype)) {
    return fail(
      `unknown dtype ${JSON.stringify(dtype)}; expected one of ${Object.keys(DTYPE_BYTES).join(", ")}`,
    );
  }
  if (!Array.isArray(shape) || !shape.every(isSize))
    return fail("shape must be a list of non-negative integers");
  if (!Array.isArray(offsets) || offsets.length !== 2 || !isSize(offsets[0]) || !isSize(offsets[1])) {
    return fail("data_offsets must be two non-negative integers");
  }
  const [begin, end] = offsets;
  const bytes = elementsOf(shape, fail) * DTYPE_BYTES[dtype];
  if (end - begin !== bytes) {
    fail(
      `${dtype} [${shape.join(", ")}] needs ${bytes} bytes, data_offsets [${begin}, ${end}] span ${end - begin}`,
    );
  }
  return { name, dtype, shape, begin, end };
}

/** Reads the length field; everything it can get wrong is told before the header is allocated. */
function checkHeaderLength(prefix: Buffer, fileBytes: number, source: string): number {
  if (fileBytes < 8) throw dataError(`${source}: ${fileBytes} bytes is too short for a safetensors file`);
  const length = prefix.readBigUInt64LE(0);
  if (length > BigInt(MAX_HEADER_BYTES)) {
    throw dataError(`${source}: header of ${length} bytes exceeds the limit of ${MAX_HEADER_BYTES}`);
  }
  if (Number(length) + 8 > fileBytes) {
    throw dataError(
      `${source}: header of ${length} bytes does not fit in a file of ${fileBytes} bytes; it is cut off`,
    );
  }
  return Number(length);
}

/**
 * Parses and checks a header.
 * @param header    the JSON bytes, without the length field
 * @param fileBytes size of the whole file
 * @param source    the file's name for errors
 */
export function parseSafetensorsHeader(
  header: Uint8Array,
  fileBytes: number,
  source: string,
): SafetensorsHeader {
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(header);
  } catch (cause) {
    throw dataError(`${source}: header is not UTF-8`, { cause });
  }
  if (!text.startsWith("{"))
    throw dataError(`${source}: header must start with {, got ${JSON.stringify(text.slice(0, 1))}`);
  const json = parseStrictJson(text, `${source}: header`, 4);
  if (!isJsonObject(json)) throw dataError(`${source}: header must be a JSON object`);

  const metadata: Record<string, string> = Object.create(null) as Record<string, string>;
  const tensors: TensorInfo[] = [];
  for (const [name, value] of Object.entries(json)) {
    if (name !== "__metadata__") {
      tensors.push(parseTensorInfo(name, value, source));
      continue;
    }
    if (!isJsonObject(value)) throw dataError(`${source}: __metadata__ must be an object of strings`);
    for (const [key, entry] of Object.entries(value)) {
      if (typeof entry !== "string") throw dataError(`${source}: __metadata__ field ${key} must be a string`);
      metadata[key] = entry;
    }
  }

  tensors.sort((a, b) => a.begin - b.begin || a.end - b.end);
  let next = 0;
  for (const tensor of tensors) {
    if (tensor.begin !== next) {
      const what = tensor.begin > next ? "leaves a hole" : "overlaps the tensor before it";
      throw dataError(
        `${source}: tensor ${JSON.stringify(tensor.name)} ${what}: starts at byte ${tensor.begin}, expected ${next}`,
      );
    }
    next = tensor.end;
  }
  const dataStart = 8 + header.length;
  if (dataStart + next !== fileBytes) {
    const what = dataStart + next > fileBytes ? "is cut off" : "has trailing bytes";
    throw dataError(`${source}: file ${what}: ${fileBytes} bytes, header describes ${dataStart + next}`);
  }
  return { tensors, metadata, dataStart };
}

/** An open safetensors file whose header has been checked. */
export class SafetensorsFile {
  private constructor(
    readonly path: string,
    readonly header: SafetensorsHeader,
    private readonly handle: FileHandle,
  ) {}

  /** @throws {TroupeError} DATA when it is no well-formed safetensors file, STORAGE when it cannot be read */
  static async open(path: string): Promise<SafetensorsFile> {
    // O_NONBLOCK: opening a FIFO that someone put in a model folder must not hang.
    const handle = await open(path, constants.O_RDONLY | constants.O_NONBLOCK).catch((cause: unknown) => {
      throw storageError(`${path}: cannot be opened`, { cause });
    });
    try {
      const stat = await handle.stat();
      if (!stat.isFile()) throw dataError(`${path}: not a regular file`);
      const prefix = Buffer.alloc(8);
      if (stat.size >= 8) await readFully(handle, prefix, 0, path);
      const header = Buffer.alloc(checkHeaderLength(prefix, stat.size, path));
      await readFully(handle, header, 8, path);
      return new SafetensorsFile(path, parseSafetensorsHeader(header, stat.size, path), handle);
    } catch (error) {
      await handle.close();
      throw error;
    }
  }

  /**
   * Reads one tensor as float32 into `target`.
   * @param target length = product of the tensor's shape
   * @throws {TroupeError} DATA for a dtype that is not F32, F16 or BF16, and for a NaN or infinite value
   */
  async readInto(tensor: TensorInfo, target: Float32Array): Promise<void> {
    const where = `${this.path}: tensor ${JSON.stringify(tensor.name)}`;
    const convert = CONVERTERS[tensor.dtype];
    if (convert === undefined) {
      throw dataError(`${where}: dtype ${tensor.dtype} is not supported; expected F32, F16 or BF16`);
    }
    const width = DTYPE_BYTES[tensor.dtype];
    const chunk = Buffer.alloc(Math.min(CHUNK_BYTES, tensor.end - tensor.begin));
    for (let byte = tensor.begin; byte < tensor.end; byte += chunk.length) {
      const part = chunk.subarray(0, Math.min(chunk.length, tensor.end - byte));
      await readFully(this.handle, part, this.header.dataStart + byte, this.path);
      const first = (byte - tensor.begin) / width;
      convert(part, target, first);
      for (let i = first; i < first + part.length / width; i++) {
        if (!Number.isFinite(target[i]))
          throw dataError(`${where}: element ${i} is ${target[i]}; weights must be finite`);
      }
    }
  }

  async close(): Promise<void> {
    await this.handle.close();
  }
}

async function readFully(handle: FileHandle, into: Buffer, position: number, path: string): Promise<void> {
  for (let done = 0; done < into.length;) {
    const { bytesRead } = await handle.read(into, done, into.length - done, position + done);
    if (bytesRead === 0) throw dataError(`${path}: ends at byte ${position + done} while it is being read`);
    done += bytesRead;
  }
}

type Converter = (bytes: Buffer, target: Float32Array, first: number) => void;

const CONVERTERS: Readonly<Record<string, Converter | undefined>> = {
  F32: (bytes, target, first) => {
    // Little-endian hosts only (every platform Node runs tensors on): the file's bytes are the memory's.
    new Uint8Array(target.buffer, target.byteOffset + first * 4, bytes.length).set(bytes);
  },
  BF16: (bytes, target, first) => {
    const words = new Uint32Array(target.buffer, target.byteOffset, target.length);
    for (let i = 0; i < bytes.length; i += 2) words[first + i / 2] = bytes.readUInt16LE(i) << 16;
  },
  F16: (bytes, target, first) => {
    for (let i = 0; i < bytes.length; i += 2) target[first + i / 2] = halfToFloat(bytes.readUInt16LE(i));
  },
};

/** IEEE 754 binary16 to a number: sign 1, exponent 5 (bias 15), fraction 10. */
export function halfToFloat(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >>> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction === 0 ? sign * Infinity : NaN;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

/**
 * The bytes before the data section of a float32 file: length field and padded header.
 * @param tensors contiguous in the data section, in this order; names sorted, as in every file we write
 */
function encodeSafetensorsHeader(
  tensors: readonly NamedShape[],
  metadata: Readonly<Record<string, string>> = { format: "pt" },
): Buffer {
  const fields = [`"__metadata__":${JSON.stringify(metadata)}`];
  let begin = 0;
  for (const { name, shape } of tensors) {
    const end = begin + 4 * shape.reduce((product, dim) => product * dim, 1);
    fields.push(
      `${JSON.stringify(name)}:${JSON.stringify({ dtype: "F32", shape, data_offsets: [begin, end] })}`,
    );
    begin = end;
  }
  const json = Buffer.from(`{${fields.join(",")}}`, "utf8");
  const padded = Math.ceil(json.length / 8) * 8; // the data section starts 8-byte aligned
  const bytes = Buffer.alloc(8 + padded, " ");
  bytes.writeBigUInt64LE(BigInt(padded), 0);
  json.copy(bytes, 8);
  return bytes;
}

/**
 * Writes a float32 safetensors file: beside the target first, then renamed, so a reader never sees half a file.
 * @param tensors sorted by name
 * @param values  the data section: all tensors' values in that order, in one piece or in several
 */
export async function writeSafetensors(
  path: string,
  tensors: readonly NamedShape[],
  values: Float32Array | AsyncIterable<Float32Array>,
  metadata: Readonly<Record<string, string>> = { format: "pt" },
): Promise<void> {
  const expected = tensors.reduce(
    (sum, { shape }) => sum + shape.reduce((product, dim) => product * dim, 1),
    0,
  );
  const checkCount = (got: number): void => {
    if (got !== expected) throw dataError(`${path}: the tensors hold ${expected} values, got ${got}`);
  };
  if (values instanceof Float32Array) checkCount(values.length);
  const partial = `${path}.partial`;
  try {
    const handle = await open(partial, "w");
    try {
      await handle.writeFile(encodeSafetensorsHeader(tensors, metadata));
      let written = 0;
      for await (const part of values instanceof Float32Array ? [values] : values) {
        const bytes = new Uint8Array(part.buffer, part.byteOffset, part.byteLength);
        for (let at = 0; at < bytes.length; at += CHUNK_BYTES) {
          await handle.writeFile(bytes.subarray(at, at + CHUNK_BYTES));
        }
        written += part.length;
      }
      checkCount(written);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(partial, path);
  } catch (cause) {
    await rm(partial, { force: true });
    if (cause instanceof TroupeError) throw cause;
    throw storageError(`${path}: cannot be written`, { cause });
  }
}
