import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  addBf16,
  addVectors,
  addVectorsRounded,
  decodeBf16,
  digestOf,
  encodeBf16,
  fold,
  roundToBf16,
} from "../../../src/kernels/gradient-kernels.js";

const bytesOf = (values: Float32Array): Buffer => Buffer.from(values.slice().buffer);

/** The definition, on the bits of one number: add half of the last kept place, ties to even, cut. */
function bf16(value: number): number {
  const [bits] = new Uint32Array(Float32Array.of(value).buffer);
  const kept = Number.isNaN(value)
    ? (bits | 0x400000) & 0xffff0000
    : (bits + 0x7fff + ((bits >>> 16) & 1)) & 0xffff0000;
  return new Float32Array(Uint32Array.of(kept >>> 0).buffer)[0];
}

const special = [
  0,
  -0,
  1,
  2 ** -149,
  3.4e38,
  -3.4e38,
  Infinity,
  -Infinity,
  NaN,
  1 + 2 ** -8,
  1 + 3 * 2 ** -8,
];
const element = fc.oneof(fc.float(), fc.constantFrom(...special.map(Math.fround)));
/** Also more than one block of the kernels (8,192 elements), and lengths that fill no vector. */
const length = fc.oneof(fc.integer({ min: 1, max: 40 }), fc.constantFrom(8191, 8192, 8193, 16_390));
const pairs = fc
  .tuple(length, fc.array(fc.tuple(element, element), { minLength: 1, maxLength: 50 }))
  .map(([count, seeds]) => ({
    a: Float32Array.from({ length: count }, (_, i) => seeds[i % seeds.length][0]),
    b: Float32Array.from({ length: count }, (_, i) => seeds[(i * 7) % seeds.length][1]),
  }));

describe("the gradient kernels", () => {
  it("add and round every element as JavaScript does, whatever the length", () => {
    fc.assert(
      fc.property(pairs, ({ a, b }) => {
        const sum = a.slice();
        addVectors(sum, b);
        expect(sum).toEqual(a.map((x, i) => x + b[i]));
        const rounded = a.slice();
        roundToBf16(rounded);
        expect(rounded).toEqual(a.map(bf16));
        const both = a.slice();
        addVectorsRounded(both, b);
        expect(both).toEqual(a.map((x, i) => bf16(Math.fround(x + b[i]))));
      }),
      { numRuns: 40 },
    );
  });

  it("add bfloat16 bytes as the same numbers in float32 are added and rounded", () => {
    fc.assert(
      fc.property(pairs, ({ a, b }) => {
        const [x, y] = [Buffer.alloc(2 * a.length + 1).subarray(1), Buffer.alloc(2 * a.length)];
        encodeBf16(a, x);
        encodeBf16(b, y);
        addBf16(x, y);
        const got = new Float32Array(a.length);
        decodeBf16(x, got);
        expect(got).toEqual(a.map((value, i) => bf16(Math.fround(bf16(value) + bf16(b[i])))));
      }),
      { numRuns: 40 },
    );
  });
});

describe("the checksum", () => {
  it("differs after any single bit has flipped, and after two signs have", () => {
    const values = Float32Array.from({ length: 9000 }, (_, i) => Math.fround(Math.sin(i)));
    const { checksum } = digestOf(bytesOf(values));
    expect(digestOf(bytesOf(values)).checksum).toBe(checksum);
    fc.assert(
      fc.property(fc.nat(values.length * 32 - 1), (bit) => {
        const damaged = bytesOf(values);
        damaged[bit >> 3] ^= 1 << (bit & 7);
        expect(digestOf(damaged).checksum).not.toBe(checksum);
      }),
    );
    // Sixteen numbers apart: the same accumulator, top bits both.
    const signs = values.slice();
    signs[100] *= -1;
    signs[116] *= -1;
    expect(digestOf(bytesOf(signs)).checksum).not.toBe(checksum);
  });

  it("counts the length: zeros at the end are not nothing", () => {
    expect(digestOf(Buffer.alloc(64)).checksum).not.toBe(digestOf(Buffer.alloc(60)).checksum);
    expect(fold([1, 2], 0)).not.toBe(fold([2, 1], 0));
  });

  it.each([NaN, Infinity, -Infinity])("says where a %s is", (value) => {
    for (const at of [0, 8191, 8192, 8999]) {
      const values = new Float32Array(9000).fill(3.4e38);
      expect(digestOf(bytesOf(values)).isFinite).toBe(true);
      values[at] = value;
      expect(digestOf(bytesOf(values)).isFinite).toBe(false);
    }
  });
});
