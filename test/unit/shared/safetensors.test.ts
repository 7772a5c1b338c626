import * as fc from "fast-check";
import { mkdtempSync, readFileSync, readdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { TroupeError } from "../../../src/shared/errors.js";
import {
  halfToFloat,
  parseSafetensorsHeader,
  SafetensorsFile,
  writeSafetensors,
} from "../../../src/shared/safetensors.js";

const folder = mkdtempSync(join(tmpdir(), "troupe-safetensors-"));
const path = join(folder, "m.safetensors");
afterAll(() => rmSync(folder, { recursive: true }));

const VALUES = Float32Array.of(1, -2, 3.5, 0, 5e-30, -6);
const TENSORS = [
  { name: "a.weight", shape: [2, 2] },
  { name: "b", shape: [] },
  { name: "c", shape: [1] },
];

/** A file with this header text (or length field) and this many data bytes. */
function fileOf(header: unknown, dataBytes = 0, lengthField?: bigint): string {
  const text = Buffer.from(typeof header === "string" ? header : JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(lengthField ?? BigInt(text.length));
  writeFileSync(path, Buffer.concat([length, text, Buffer.alloc(dataBytes)]));
  return path;
}

const tensor = (dtype: unknown, shape: unknown, data_offsets: unknown) => ({ dtype, shape, data_offsets });

async function readAll(file: string): Promise<Map<string, Float32Array>> {
  const opened = await SafetensorsFile.open(file);
  try {
    const values = new Map<string, Float32Array>();
    for (const info of opened.header.tensors) {
      const target = new Float32Array(info.shape.reduce((a, b) => a * b, 1));
      await opened.readInto(info, target);
      values.set(info.name, target);
    }
    return values;
  } finally {
    await opened.close();
  }
}

describe("safetensors", () => {
  it("reads back what it wrote, sorted, with the data section 8-byte aligned", async () => {
    await writeSafetensors(path, TENSORS, VALUES);
    const file = await SafetensorsFile.open(path);
    expect(file.header.dataStart % 8).toBe(0);
    expect({ ...file.header.metadata }).toEqual({ format: "pt" });
    expect(file.header.tensors.map(({ name, shape }) => ({ name, shape }))).toEqual(TENSORS);
    await file.close();
    const bytes = readFileSync(path).subarray(file.header.dataStart);
    expect(Buffer.compare(bytes, Buffer.from(VALUES.buffer))).toBe(0);
    expect((await readAll(path)).get("a.weight")).toEqual(VALUES.subarray(0, 4));
    expect(readdirSync(folder).some((name) => name.endsWith(".partial"))).toBe(false);
  });

  it("refuses to write tensors and values of different sizes", async () => {
    await expect(writeSafetensors(path, TENSORS, VALUES.subarray(1))).rejects.toThrow(/hold 6 values, got 5/);
  });

  it("widens F16 and BF16 exactly, subnormals and signed zeros included", async () => {
    fileOf({ h: tensor("F16", [4], [0, 8]), b: tensor("BF16", [3], [8, 14]) }, 0);
    const data = Buffer.alloc(14);
    [0x3c00, 0x0001, 0x8000, 0xfbff].forEach((bits, i) => data.writeUInt16LE(bits, 2 * i));
    [0x3f80, 0xc049, 0x0001].forEach((bits, i) => data.writeUInt16LE(bits, 8 + 2 * i));
    writeFileSync(path, Buffer.concat([readFileSync(path), data]));
    const values = await readAll(path);
    expect([...values.get("h")!]).toEqual([1, 2 ** -24, -0, -65504]);
    expect([...values.get("b")!]).toEqual([1, -3.140625, 2 ** -133]);
    expect([0x7c00, 0xfc00, 0x7e00, 0x03ff].map(halfToFloat)).toEqual([
      Infinity,
      -Infinity,
      NaN,
      1023 * 2 ** -24,
    ]);
  });

  it("accepts an unaligned header and an empty file of no tensors", async () => {
    fileOf(' {"a":1}'.trim().replace("1", '{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'));
    expect((await readAll(path)).get("a")).toEqual(new Float32Array(0));
    fileOf("{}");
    expect((await readAll(path)).size).toBe(0);
  });

  const F32 = tensor("F32", [1], [0, 4]);
  it.each<[string, unknown, number, RegExp, bigint?]>([
    ["a header longer than the cap", "{}", 0, /header of 100000001 bytes exceeds the limit/, 100_000_001n],
    ["a header of 2^63 bytes", "{}", 0, /header of 9223372036854775808 bytes/, 2n ** 63n],
    ["a header longer than the file", "{}", 0, /does not fit in a file of 10 bytes/, 3n],
    ["a header that starts with a space", ' {"a":1}', 0, /header must start with \{/],
    ["a list as header", "[]", 0, /header must start with \{, got "\["/],
    ["an empty header", "", 0, /header must start with/],
    ["cut-off JSON", '{"a":', 0, /invalid JSON at character 5/],
    ["text after the header", "{}x", 0, /text after the value/],
    ["a duplicate tensor", `{"a":${JSON.stringify(F32)},"a":${JSON.stringify(F32)}}`, 4, /duplicate key "a"/],
    [
      "a duplicate field",
      '{"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
      4,
      /duplicate key "dtype"/,
    ],
    ["deep nesting", `{"a":${"[".repeat(100_000)}`, 0, /nested deeper/],
    ["an unknown dtype", { a: tensor("F33", [1], [0, 4]) }, 4, /tensor "a": unknown dtype "F33"/],
    ["an inherited dtype name", { a: tensor("toString", [1], [0, 4]) }, 4, /unknown dtype/],
    ["a negative dimension", { a: tensor("F32", [-1], [0, 4]) }, 4, /tensor "a": shape must be/],
    ["a fractional dimension", { a: tensor("F32", [1.5], [0, 6]) }, 6, /tensor "a": shape must be/],
    ["a missing shape", { a: { dtype: "F32", data_offsets: [0, 4] } }, 4, /tensor "a": shape must be/],
    ["an unknown field", { a: { ...F32, extra: 1 } }, 4, /tensor "a": unknown field extra/],
    ["negative offsets", { a: tensor("F32", [1], [-4, 0]) }, 4, /tensor "a": data_offsets must be/],
    ["three offsets", { a: tensor("F32", [1], [0, 4, 8]) }, 4, /tensor "a": data_offsets must be/],
    [
      "offsets the wrong way round",
      { a: tensor("F32", [1], [4, 0]) },
      4,
      /tensor "a": F32 \[1\] needs 4 bytes/,
    ],
    ["a size that does not fit the shape", { a: tensor("F32", [2], [0, 4]) }, 4, /needs 8 bytes.*span 4/],
    ["a shape that overflows", { a: tensor("F32", [2 ** 40, 2 ** 40], [0, 4]) }, 4, /overflows/],
    ["a hole before the first tensor", { a: tensor("F32", [1], [4, 8]) }, 8, /tensor "a" leaves a hole/],
    ["a hole between tensors", { a: F32, b: tensor("F32", [1], [8, 12]) }, 12, /tensor "b" leaves a hole/],
    [
      "overlapping tensors",
      { a: tensor("F32", [2], [0, 8]), b: tensor("F32", [1], [4, 8]) },
      8,
      /tensor "b" overlaps/,
    ],
    ["two tensors on the same bytes", { a: F32, b: F32 }, 4, /overlaps/],
    ["trailing bytes", { a: F32 }, 5, /has trailing bytes: \d+ bytes/],
    ["a file shorter than its tensors", { a: F32 }, 3, /is cut off/],
    ["a tensor that is a number", { a: 1 }, 0, /tensor "a": expected an object/],
    ["metadata that is not text", { __metadata__: { a: 1 } }, 0, /__metadata__ field a must be a string/],
    ["metadata that is a list", { __metadata__: [] }, 0, /__metadata__ must be an object/],
  ])("refuses %s", async (_name, header, dataBytes, message, lengthField) => {
    await expect(SafetensorsFile.open(fileOf(header, dataBytes, lengthField))).rejects.toThrow(message);
    await expect(SafetensorsFile.open(path)).rejects.toThrow(path);
    await expect(SafetensorsFile.open(path)).rejects.toBeInstanceOf(TroupeError);
  });

  it("refuses a header that is not UTF-8 and a file too short for a length", async () => {
    writeFileSync(
      path,
      Buffer.concat([Buffer.from([3, 0, 0, 0, 0, 0, 0, 0]), Buffer.from([0x7b, 0xff, 0x7d])]),
    );
    await expect(SafetensorsFile.open(path)).rejects.toThrow(/header is not UTF-8/);
    writeFileSync(path, Buffer.alloc(7));
    await expect(SafetensorsFile.open(path)).rejects.toThrow(/7 bytes is too short/);
  });

  it("keeps __proto__ a plain tensor name", async () => {
    fileOf(`{"__proto__":${JSON.stringify(F32)}}`, 4);
    expect([...(await readAll(path)).keys()]).toEqual(["__proto__"]);
    expect(({} as Record<string, unknown>).dtype).toBeUndefined();
  });

  it("refuses values that are NaN or infinite, naming tensor and element", async () => {
    await writeSafetensors(path, TENSORS, Float32Array.of(1, 2, NaN, 4, 5, 6));
    await expect(readAll(path)).rejects.toThrow(/tensor "a.weight": element 2 is NaN/);
  });

  it("refuses to read a dtype that is not floating point, but opens the file", async () => {
    fileOf({ mask: tensor("BOOL", [4], [0, 4]) }, 4);
    await expect(readAll(path)).rejects.toThrow(
      /tensor "mask": dtype BOOL is not supported; expected F32, F16 or BF16/,
    );
  });

  it("refuses folders, devices and missing files", async () => {
    await expect(SafetensorsFile.open(folder)).rejects.toThrow(/not a regular file/);
    await expect(SafetensorsFile.open("/dev/zero")).rejects.toThrow(/not a regular file/);
    await expect(SafetensorsFile.open(join(folder, "none"))).rejects.toThrow(/cannot be opened/);
    symlinkSync("/dev/zero", join(folder, "link"));
    await expect(SafetensorsFile.open(join(folder, "link"))).rejects.toThrow(/not a regular file/);
  });
});

describe("mutated safetensors headers", () => {
  let header: Buffer;
  let fileBytes: number;
  beforeAll(async () => {
    await writeSafetensors(path, TENSORS, VALUES);
    const bytes = readFileSync(path);
    header = bytes.subarray(8, 8 + Number(bytes.readBigUInt64LE(0)));
    fileBytes = bytes.length;
  });

  /** Whatever a header is, it is refused with a DATA error or describes the data section exactly. */
  function expectRefusedOrExact(bytes: Uint8Array, size: number): boolean {
    let parsed;
    try {
      parsed = parseSafetensorsHeader(bytes, size, "m");
    } catch (error) {
      if (error instanceof TroupeError && error.code === "DATA") return false;
      throw error;
    }
    let next = 0;
    for (const { begin, end, shape } of parsed.tensors) {
      if (begin !== next || end < begin || !shape.every(Number.isSafeInteger))
        throw new Error("not contiguous");
      next = end;
    }
    if (parsed.dataStart + next !== size)
      throw new Error(`describes ${next} of ${size - parsed.dataStart} bytes`);
    return true;
  }

  it("are refused or exact for 20,000 random byte edits", () => {
    let accepted = 0;
    const edit = fc.record({
      at: fc.nat(400),
      byte: fc.nat(255),
      kind: fc.constantFrom("set", "insert", "remove"),
    });
    fc.assert(
      fc.property(fc.array(edit, { minLength: 1, maxLength: 4 }), (edits) => {
        const bytes = [...header];
        for (const { at, byte, kind } of edits) {
          const place = at % bytes.length;
          if (kind === "remove") bytes.splice(place, 1);
          else bytes.splice(place, kind === "set" ? 1 : 0, byte);
        }
        if (expectRefusedOrExact(Uint8Array.from(bytes), fileBytes)) accepted++;
      }),
      { numRuns: 20_000, seed: 1 },
    );
    expect(accepted).toBeLessThan(20_000);
  });

  it("are refused or exact for random tensor tables", () => {
    const size = fc.oneof(fc.nat(9), fc.constantFrom(-1, 0.5, 2 ** 31, 2 ** 53, 1e308));
    const entry = fc.record({
      dtype: fc.constantFrom("F32", "F16", "U8", "F64", "f32", 4),
      shape: fc.oneof(fc.array(size, { maxLength: 3 }), size),
      data_offsets: fc.oneof(fc.tuple(size, size), fc.array(size, { maxLength: 3 })),
    });
    fc.assert(
      fc.property(
        fc.dictionary(fc.string({ maxLength: 4 }), entry, { maxKeys: 4 }),
        fc.nat(40),
        (table, extra) => {
          const bytes = Buffer.from(JSON.stringify(table));
          expectRefusedOrExact(bytes, 8 + bytes.length + extra);
        },
      ),
      { numRuns: 5_000, seed: 2 },
    );
  });
});
