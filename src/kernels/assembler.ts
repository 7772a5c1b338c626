/**
 * Just enough of WebAssembly's binary format to write numeric loops over four float32 at a time.
 *
 * @see https://webassembly.github.io/spec/core/binary/
 */

/** Value types. */
const TYPE = { i32: 0x7f, f32: 0x7d, f64: 0x7c, v128: 0x7b } as const;
export type ValueType = keyof typeof TYPE;

/** Unsigned LEB128. */
function leb(value: number): number[] {
  const bytes: number[] = [];
  do {
    const low = value & 0x7f;
    value >>>= 7;
    bytes.push(value === 0 ? low : low | 0x80);
  } while (value !== 0);
  return bytes;
}

/** Vector instructions have the prefix 0xfd. */
const simd = (code: number): number[] => [0xfd, ...leb(code)];

/** Address comes from the stack; `offset` bytes are added to it. Alignment 2⁴. */
const memory =
  (code: number) =>
  (offset: number): number[] => [...simd(code), 4, ...leb(offset)];

export const op = {
  get: (local: number): number[] => [0x20, ...leb(local)],
  set: (local: number): number[] => [0x21, ...leb(local)],
  tee: (local: number): number[] => [0x22, ...leb(local)],
  i32: (value: number): number[] => [0x41, ...signedLeb(value)],
  addI32: [0x6a],
  lessI32: [0x49],
  shiftI32: [0x74],
  addF64: [0xa0],
  load: memory(0x00),
  store: memory(0x0b),
  splat: simd(0x13),
  add: simd(0xe4),
  sub: simd(0xe5),
  mul: simd(0xe6),
  div: simd(0xe7),
  sqrt: simd(0xe3),
  /** The two low float32 as float64. */
  promoteLow: simd(0x5f),
  addF64x2: simd(0xf0),
  mulF64x2: simd(0xf2),
  laneF64: (lane: number): number[] => [...simd(0x21), lane],
  and: simd(0x4e),
  or: simd(0x50),
  /** Bits of the first operand where the third has ones, of the second elsewhere. */
  select: simd(0x52),
  notEqual: simd(0x42),
  splatI32: simd(0x11),
  equalI32x4: simd(0x37),
  addI32x4: simd(0xae),
  mulI32x4: simd(0xb5),
  /** By the count on the stack, zeros shifted in. */
  shiftLeft: simd(0xab),
  shiftRight: simd(0xad),
  /** Bytes `lanes` of the two operands, numbered 0..31. */
  shuffle: (...lanes: number[]): number[] => [...simd(0x0d), ...lanes],
  /** Lanes 2 and 3 of the first operand, then of the second. */
  highHalves: [...simd(0x0d), 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31],
} as const;

function signedLeb(value: number): number[] {
  const bytes: number[] = [];
  for (;;) {
    const low = value & 0x7f;
    value >>= 7;
    const isDone = (value === 0 && (low & 0x40) === 0) || (value === -1 && (low & 0x40) !== 0);
    bytes.push(isDone ? low : low | 0x80);
    if (isDone) return bytes;
  }
}

export interface WasmFunction {
  readonly name: string;
  readonly params: readonly ValueType[];
  readonly result: ValueType | null;
  readonly locals: readonly ValueType[];
  readonly body: readonly number[];
}

/** `body` for `counter` = 0, `step`, 2·`step`, … below the i32 in local `limit`; `limit` > 0. */
export const loop = (counter: number, limit: number, step: number, body: readonly number[]): number[] => [
  ...[0x03, 0x40],
  ...body,
  ...[...op.get(counter), ...op.i32(step), ...op.addI32, ...op.tee(counter), ...op.get(limit), ...op.lessI32],
  ...[0x0d, 0x00, 0x0b],
];

/** A module with one memory of `pages` · 64 KiB, exported as "memory". */
export function assemble(functions: readonly WasmFunction[], pages: number): Uint8Array<ArrayBuffer> {
  const vector = (items: readonly (readonly number[])[]): number[] => [...leb(items.length), ...items.flat()];
  const section = (id: number, content: readonly number[]): number[] => [
    id,
    ...leb(content.length),
    ...content,
  ];
  const text = (value: string): number[] => vector([...Buffer.from(value)].map((byte) => [byte]));
  const types = functions.map(({ params, result }) => [
    0x60,
    ...vector(params.map((type) => [TYPE[type]])),
    ...vector(result === null ? [] : [[TYPE[result]]]),
  ]);
  const bodies = functions.map(({ locals, body }) => {
    const code = [...vector(locals.map((type) => [1, TYPE[type]])), ...body, 0x0b];
    return [...leb(code.length), ...code];
  });
  const exports = functions.map(({ name }, i) => [...text(name), 0x00, ...leb(i)]);
  return Uint8Array.from([
    ...[0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00],
    ...section(1, vector(types)),
    ...section(3, vector(functions.map((_, i) => leb(i)))),
    ...section(5, vector([[0x00, ...leb(pages)]])),
    ...section(7, vector([...exports, [...text("memory"), 0x02, 0x00]])),
    ...section(10, vector(bodies)),
  ]);
}
