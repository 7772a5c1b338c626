/**
 * Matrices of models that are only read, held as int8. Blocks of up to 128 weights along the input side share a scale:
 *
 *   s = max|w| / 127        w ≈ s · (q − 128),  q in 1..255        |error| ≤ s / 2
 *
 * Products round each row of activations by blocks in the same way and add up integers. Everything else of such a model
 * (norms, biases, heads of one output) stays float32.
 *
 * @see https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.MatMulNBits
 */
import { shapeError } from "../shared/errors.js";
import type { Arena } from "./engine.js";
import { checkArenaLength } from "./host-arena.js";
import { makeLayout, viewOf, type Layout, type LayoutEntry } from "./layout.js";

/** Which matrices of an arena are held as int8, and whether each is stored `[out, in]` or `[in, out]`. */
export interface FrozenForm {
  readonly matrices: Readonly<Record<string, { readonly isOutIn: boolean }>>;
}

/** What of a held matrix a graph reads. */
export type FrozenPart = "int8" | "scales";
export type FrozenMemory = Float32Array | Uint8Array;

interface HeldMatrix extends Readonly<Record<FrozenPart, FrozenMemory>> {
  readonly int8: Uint8Array;
  readonly scales: Float32Array;
  readonly shape: BlockShape;
  readonly isOutIn: boolean;
}

const LARGEST_BLOCK = 128;
const SMALLEST_BLOCK = 16;
/** int8's zero: values are stored as bytes from 1 to 255. */
export const INT8_ZERO = 128;
const INT8_LARGEST = 127;

/** An int8 matrix is `[outputs, blocks, width]`, its scales `[outputs, blocks]`. */
export interface BlockShape {
  readonly outputs: number;
  readonly inputs: number;
  readonly blocks: number;
  readonly width: number;
}

/** The widest block that divides the input side, which needs no filling; else 32 with a filled last block. */
export function blockShape({ shape }: Pick<LayoutEntry, "shape">, isOutIn: boolean): BlockShape {
  const [outputs, inputs] = isOutIn ? shape : [shape[1], shape[0]];
  let width = LARGEST_BLOCK;
  while (width >= SMALLEST_BLOCK && inputs % width !== 0) width /= 2;
  if (width < SMALLEST_BLOCK) width = 32;
  return { outputs, inputs, blocks: Math.ceil(inputs / width), width };
}

/** Bytes that an arena of this form takes. */
export function frozenBytes(layout: Layout, { matrices }: FrozenForm): number {
  return layout.entries.reduce((sum, entry) => {
    const matrix = matrices[entry.name];
    if (matrix === undefined) return sum + 4 * entry.size;
    const { outputs, blocks, width } = blockShape(entry, matrix.isOutIn);
    return sum + outputs * blocks * (width + 4);
  }, 0);
}

/** An arena whose matrices are held as int8. `write` rounds; `read` gives the rounded values. */
export class FrozenArena implements Arena {
  /** Grows whenever the values are replaced. */
  revision = 0;
  private readonly plain: Layout;
  private readonly plainValues: Float32Array;
  private readonly held = new Map<string, HeldMatrix>();

  constructor(
    readonly layout: Layout,
    readonly form: FrozenForm,
  ) {
    const { matrices } = form;
    const plain = layout.entries.filter(({ name }) => matrices[name] === undefined);
    this.plain = makeLayout(Object.fromEntries(plain.map(({ name, shape }) => [name, shape])));
    // Explicit ArrayBuffers: see HostArena.
    this.plainValues = new Float32Array(new ArrayBuffer(4 * this.plain.size));
    for (const [name, { isOutIn }] of Object.entries(matrices)) {
      const entry = layout.byName.get(name);
      if (entry?.shape.length !== 2) throw shapeError(`${name}: expected a matrix of the arena's layout`);
      const shape = blockShape(entry, isOutIn);
      const count = shape.outputs * shape.blocks;
      const int8 = new Uint8Array(new ArrayBuffer(count * shape.width)).fill(INT8_ZERO);
      const scales = new Float32Array(new ArrayBuffer(4 * count));
      this.held.set(name, { int8, scales, shape, isOutIn });
    }
  }

  /** Live memory of a tensor that is not held as int8, or of one part of a matrix that is. */
  memoryOf(name: string, part?: FrozenPart): FrozenMemory {
    if (part === undefined) return viewOf(this.plain, this.plainValues, name);
    const matrix = this.held.get(name);
    if (matrix === undefined) throw shapeError(`${name} is not held as int8`);
    return matrix[part];
  }

  async read(): Promise<Float32Array> {
    const values = new Float32Array(this.layout.size);
    for (const { name } of this.layout.entries) {
      const target = viewOf(this.layout, values, name);
      const matrix = this.held.get(name);
      if (matrix === undefined) target.set(viewOf(this.plain, this.plainValues, name));
      else fromInt8(matrix, target);
    }
    return values;
  }

  async write(values: Float32Array): Promise<void> {
    checkArenaLength(this.layout, values);
    for (const { name } of this.layout.entries) {
      const source = viewOf(this.layout, values, name);
      const matrix = this.held.get(name);
      if (matrix === undefined) viewOf(this.plain, this.plainValues, name).set(source);
      else toInt8(source, matrix);
    }
    this.revision++;
  }

  async clear(): Promise<void> {
    await this.write(new Float32Array(this.layout.size));
  }

  dispose(): void {
    this.held.clear();
  }
}

/** Position of output o's input i in the float32 matrix: base + i · step. */
const rowOf = (
  { shape, isOutIn }: HeldMatrix,
  o: number,
): { readonly base: number; readonly step: number } =>
  isOutIn ? { base: o * shape.inputs, step: 1 } : { base: o, step: shape.outputs };

function toInt8(source: Float32Array, matrix: HeldMatrix): void {
  const { int8, scales, shape } = matrix;
  const { outputs, inputs, blocks, width } = shape;
  for (let o = 0; o < outputs; o++) {
    const { base, step } = rowOf(matrix, o);
    for (let block = 0; block < blocks; block++) {
      const first = block * width;
      const end = Math.min(inputs, first + width);
      let largest = 0;
      for (let i = first; i < end; i++) largest = Math.max(largest, Math.abs(source[base + i * step]));
      const scale = Math.fround(largest / INT8_LARGEST);
      const at = (o * blocks + block) * width;
      scales[o * blocks + block] = scale;
      int8.fill(INT8_ZERO, at, at + width);
      if (scale === 0) continue;
      for (let i = first; i < end; i++) {
        const steps = Math.round(source[base + i * step] / scale);
        int8[at + i - first] = INT8_ZERO + Math.max(-INT8_LARGEST, Math.min(INT8_LARGEST, steps));
      }
    }
  }
}

function fromInt8(matrix: HeldMatrix, target: Float32Array): void {
  const { int8, scales, shape } = matrix;
  const { outputs, inputs, blocks, width } = shape;
  for (let o = 0; o < outputs; o++) {
    const { base, step } = rowOf(matrix, o);
    for (let i = 0; i < inputs; i++) {
      const block = o * blocks + Math.floor(i / width);
      target[base + i * step] = scales[block] * (int8[block * width + (i % width)] - INT8_ZERO);
    }
  }
}
