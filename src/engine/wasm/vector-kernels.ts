/**
 * Two passes over long vectors in WebAssembly, for optimizers whose state is in host memory. Every element is computed
 * on its own with float32 additions, products, divisions and roots, which the standard fixes to the bit: the same
 * numbers on every machine.
 */
import { assemble, loop, op, type WasmFunction } from "../../kernels/assembler.js";

/** Elements per block: four blocks (parameter, gradient, two moments) stay in a core's second-level cache. */
export const BLOCK = 8192;
const BLOCK_BYTES = 4 * BLOCK;
const AT = { param: 0, grad: BLOCK_BYTES, m: 2 * BLOCK_BYTES, v: 3 * BLOCK_BYTES };
const PAGES = (4 * BLOCK_BYTES) / 65536;

/** Scalars of one AdamW update of float32 vectors; each is rounded to float32 once. */
export interface AdamwScalars {
  /** Multiplies the gradient (clipping). */
  readonly gradScale: number;
  readonly beta1: number;
  readonly beta2: number;
  /** 1 − η·λ */
  readonly decay: number;
  /** η / (1 − β₁ᵗ) */
  readonly stepSize: number;
  /** 1 / √(1 − β₂ᵗ) */
  readonly correction: number;
  readonly epsilon: number;
}

/** Locals of `adamw`: the byte count, nine scalars, then what the body uses. */
const SCALARS = [
  "gradScale",
  "beta1",
  "rest1",
  "beta2",
  "rest2",
  "decay",
  "stepSize",
  "correction",
  "epsilon",
];
const scalarAt = (name: string): number[] => [...op.get(12 + SCALARS.indexOf(name))];

const [BYTES, INDEX, GRAD] = [0, 10, 11];

const adamw: WasmFunction = {
  name: "adamw",
  params: ["i32", ...SCALARS.map(() => "f32" as const)],
  result: null,
  locals: ["i32", "v128", ...SCALARS.map(() => "v128" as const)],
  body: [
    ...SCALARS.flatMap((_, i) => [...op.get(1 + i), ...op.splat, ...op.set(12 + i)]),
    ...loop(INDEX, BYTES, 16, [
      // g ← g · gradScale
      ...[...op.get(INDEX), ...op.load(AT.grad), ...scalarAt("gradScale"), ...op.mul, ...op.set(GRAD)],
      // m ← m·β₁ + g·(1 − β₁)
      ...op.get(INDEX),
      ...[...op.get(INDEX), ...op.load(AT.m), ...scalarAt("beta1"), ...op.mul],
      ...[...op.get(GRAD), ...scalarAt("rest1"), ...op.mul, ...op.add],
      ...op.store(AT.m),
      // v ← v·β₂ + g²·(1 − β₂)
      ...op.get(INDEX),
      ...[...op.get(INDEX), ...op.load(AT.v), ...scalarAt("beta2"), ...op.mul],
      ...[...op.get(GRAD), ...op.get(GRAD), ...op.mul, ...scalarAt("rest2"), ...op.mul, ...op.add],
      ...op.store(AT.v),
      // p ← p·decay − m / (√v·correction + ε) · stepSize
      ...op.get(INDEX),
      ...[...op.get(INDEX), ...op.load(AT.param), ...scalarAt("decay"), ...op.mul],
      ...[...op.get(INDEX), ...op.load(AT.m)],
      ...[...op.get(INDEX), ...op.load(AT.v), ...op.sqrt, ...scalarAt("correction"), ...op.mul],
      ...[...scalarAt("epsilon"), ...op.add, ...op.div, ...scalarAt("stepSize"), ...op.mul, ...op.sub],
      ...op.store(AT.param),
    ]),
  ],
};

/** Σ g² over the gradient block, in float64: even and odd pairs apart, then together. */
const sumSquares: WasmFunction = {
  name: "sumSquares",
  params: ["i32"],
  result: "f64",
  locals: ["i32", "v128", "v128", "v128", "v128"],
  body: [
    ...loop(1, 0, 16, [
      ...[...op.get(1), ...op.load(AT.grad), ...op.tee(2), ...op.promoteLow, ...op.tee(3)],
      ...[...op.get(3), ...op.mulF64x2, ...op.get(4), ...op.addF64x2, ...op.set(4)],
      ...[...op.get(2), ...op.get(2), ...op.highHalves, ...op.promoteLow, ...op.tee(3)],
      ...[...op.get(3), ...op.mulF64x2, ...op.get(5), ...op.addF64x2, ...op.set(5)],
    ]),
    ...[...op.get(4), ...op.get(5), ...op.addF64x2, ...op.tee(4), ...op.laneF64(0)],
    ...[...op.get(4), ...op.laneF64(1), ...op.addF64],
  ],
};

interface Exports {
  readonly memory: { readonly buffer: ArrayBuffer };
  readonly adamw: (bytes: number, ...scalars: number[]) => void;
  readonly sumSquares: (bytes: number) => number;
}

/** Part of the standard that Node's type declarations leave to the browser's. */
declare const WebAssembly: {
  readonly Module: new (bytes: Uint8Array) => object;
  readonly Instance: new (module: object) => { readonly exports: unknown };
};

let loaded: { exports: Exports; block: (at: number) => Float32Array } | undefined;

function kernels() {
  if (loaded === undefined) {
    const module = new WebAssembly.Module(assemble([adamw, sumSquares], PAGES));
    const exports = new WebAssembly.Instance(module).exports as Exports;
    const block = (at: number) => new Float32Array(exports.memory.buffer, at, BLOCK);
    loaded = { exports, block };
  }
  return loaded;
}

/** Bytes of a block's first `count` elements, rounded up to whole vectors of four. */
const vectorBytes = (count: number): number => 16 * Math.ceil(count / 4);

/** Σ x² of every block of `BLOCK` elements, each accumulated in float64 in a fixed order. */
export function squaresOfBlocks(values: Float32Array): Float64Array {
  const { exports, block } = kernels();
  const grad = block(AT.grad);
  const sums = new Float64Array(Math.ceil(values.length / BLOCK));
  for (let i = 0; i < sums.length; i++) {
    const part = values.subarray(i * BLOCK, (i + 1) * BLOCK);
    grad.set(part);
    if (part.length < BLOCK) grad.fill(0, part.length);
    sums[i] = exports.sumSquares(vectorBytes(part.length));
  }
  return sums;
}

export interface AdamwVectors {
  readonly param: Float32Array;
  readonly grad: Float32Array;
  readonly m: Float32Array;
  readonly v: Float32Array;
}

/** One AdamW update in place (see `adamwUpdate` for the formula); `grad` is only read. All of one length. */
export function adamwInPlace(vectors: AdamwVectors, scalars: AdamwScalars): void {
  const { exports, block } = kernels();
  const blocks = { param: block(AT.param), grad: block(AT.grad), m: block(AT.m), v: block(AT.v) };
  const { gradScale, beta1, beta2, decay, stepSize, correction, epsilon } = scalars;
  const { length } = vectors.param;
  for (let start = 0; start < length; start += BLOCK) {
    const end = Math.min(start + BLOCK, length);
    for (const name of ["param", "grad", "m", "v"] as const)
      blocks[name].set(vectors[name].subarray(start, end));
    // What lies beyond the end of a short block is computed too, and not copied back.
    exports.adamw(
      vectorBytes(end - start),
      ...[gradScale, beta1, 1 - beta1, beta2, 1 - beta2, decay, stepSize, correction, epsilon],
    );
    for (const name of ["param", "m", "v"] as const)
      vectors[name].set(end - start === BLOCK ? blocks[name] : blocks[name].subarray(0, end - start), start);
  }
}
