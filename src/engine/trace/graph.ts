/** An ONNX graph under construction. Values are referred to by name. */

export type OnnxType = "float32" | "uint8" | "int32" | "int64" | "bool";

/** ONNX' numbers for the element types (TensorProto.DataType). */
export const ONNX_TYPE_CODE: Readonly<Record<OnnxType, number>> = {
  float32: 1,
  uint8: 2,
  int32: 6,
  int64: 7,
  bool: 9,
};

export interface ConstantTensor {
  readonly dtype: OnnxType;
  readonly dims: readonly number[];
  /** Little-endian elements. */
  readonly bytes: Uint8Array;
}

export interface Initializer extends ConstantTensor {
  readonly name: string;
  /** Where its bytes stand instead of in the model: a file in the model's folder. */
  readonly external?: { readonly file: string; readonly offset: number };
}

/** A plain number is an integer attribute; floats are marked. */
export type Attribute =
  number | string | readonly number[] | { readonly float: number } | { readonly tensor: ConstantTensor };
export type Attributes = Readonly<Record<string, Attribute>>;

export interface GraphNode {
  readonly op: string;
  /** "" for standard ONNX, "com.microsoft" for ONNX Runtime's own ops. */
  readonly domain: string;
  inputs: string[];
  outputs: string[];
  readonly attributes: Attributes;
  /** Rank of a matrix product's operands: lowerings need it and the graph carries no other shapes. */
  readonly rank?: number;
  /** The segment in whose forward pass it was emitted. */
  readonly segment?: Segment;
}

/** A part of the forward pass, see ./segments. */
export interface Segment {
  readonly input: string;
  readonly isRecomputed: boolean;
  /** Known once the forward pass has left the segment. */
  output?: string;
  /** Gradient of the loss by the segment's output; known once the backward pass has come to it. */
  outputGradient?: string;
}

export interface ValueInfo {
  readonly name: string;
  readonly dtype: OnnxType;
  readonly dims: readonly number[];
  /** Of a frozen value: many sessions are loaded with it, and share what ONNX Runtime makes of it. */
  readonly isShared?: boolean;
}

export interface Graph {
  nodes: GraphNode[];
  initializers: Initializer[];
  /** Constants whose values are given when the model is loaded, from the caller's memory. */
  readonly frozen?: readonly ValueInfo[];
  readonly inputs: readonly ValueInfo[];
  readonly outputs: readonly ValueInfo[];
}

export interface EmitOptions {
  readonly domain?: string;
  readonly rank?: number;
}

export interface MatMulOptions {
  readonly transA?: boolean;
  readonly transB?: boolean;
  /** Multiplies the product. @default 1 */
  readonly alpha?: number;
  /** Rank of both operands. @default 2 */
  readonly rank?: number;
}

const MICROSOFT = "com.microsoft";
/** Constants up to this many bytes are shared between uses. */
const SHARED_CONSTANT_BYTES = 256;

export class GraphBuilder implements Graph {
  nodes: GraphNode[] = [];
  initializers: Initializer[] = [];
  readonly inputs: ValueInfo[] = [];
  readonly outputs: ValueInfo[] = [];
  readonly frozen: ValueInfo[] = [];
  readonly #shared = new Map<string, string>();
  #count = 0;
  #segment: Segment | undefined;

  /** @param prefix starts every generated name; graphs that will be joined need different ones */
  constructor(private readonly prefix = "") {}

  /** Declares a constant whose values are given when the model is loaded. */
  freeze(info: ValueInfo): string {
    this.frozen.push(info);
    return info.name;
  }

  isFrozen(name: string): boolean {
    return this.frozen.some((info) => info.name === name);
  }

  /** Declares a graph input. */
  input(info: ValueInfo): string {
    this.inputs.push(info);
    return info.name;
  }

  /** Declares `value` a graph output of the given name. */
  output(info: ValueInfo, value: string): void {
    this.nodes.push({ op: "Identity", domain: "", inputs: [value], outputs: [info.name], attributes: {} });
    this.outputs.push(info);
  }

  /** Nodes that `build` emits belong to `segment`. Segments do not nest. */
  inSegment<T>(segment: Segment, build: () => T): T {
    this.#segment = segment;
    try {
      return build();
    } finally {
      this.#segment = undefined;
    }
  }

  /** Adds a node and returns the names of its `outputs` results. */
  emit(
    op: string,
    inputs: readonly string[],
    outputs: number,
    attributes: Attributes = {},
    options: EmitOptions = {},
  ): string[] {
    const names = Array.from({ length: outputs }, () => `${this.prefix}${op}_${this.#count++}`);
    this.nodes.push({
      op,
      domain: options.domain ?? "",
      inputs: [...inputs],
      outputs: names,
      attributes,
      ...(options.rank === undefined ? {} : { rank: options.rank }),
      ...(this.#segment === undefined ? {} : { segment: this.#segment }),
    });
    return [...names];
  }

  /** Adds a node with one result. */
  op(op: string, inputs: readonly string[], attributes: Attributes = {}): string {
    return this.emit(op, inputs, 1, attributes)[0];
  }

  /** Adds one of ONNX Runtime's own ops with one result. */
  microsoftOp(op: string, inputs: readonly string[], attributes: Attributes = {}, rank?: number): string {
    return this.emit(op, inputs, 1, attributes, {
      domain: MICROSOFT,
      ...(rank === undefined ? {} : { rank }),
    })[0];
  }

  /** A constant; `shareKey` lets a large one be shared too. */
  constant(dtype: OnnxType, dims: readonly number[], values: ArrayBufferView, shareKey?: string): string {
    const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
    let key = shareKey;
    if (key === undefined && bytes.length <= SHARED_CONSTANT_BYTES) {
      key = `${dtype}[${dims.join()}]${Buffer.from(bytes).toString("hex")}`;
    }
    const known = key === undefined ? undefined : this.#shared.get(key);
    if (known !== undefined) return known;
    const name = `${this.prefix}constant_${this.#count++}`;
    this.initializers.push({ name, dtype, dims: [...dims], bytes: bytes.slice() });
    if (key !== undefined) this.#shared.set(key, name);
    return name;
  }

  /** An int64 vector, the type of shapes and axes. */
  int64s(values: readonly number[]): string {
    return this.constant("int64", [values.length], BigInt64Array.from(values.map(BigInt)));
  }

  float(value: number, dims: readonly number[] = []): string {
    return this.constant("float32", dims, Float32Array.of(value));
  }

  int(value: number, dims: readonly number[] = []): string {
    return this.constant("int32", dims, Int32Array.of(value));
  }

  cast(x: string, to: OnnxType): string {
    return this.op("Cast", [x], { to: ONNX_TYPE_CODE[to] });
  }

  reshape(x: string, dims: readonly number[]): string {
    return this.op("Reshape", [x, this.int64s(dims)]);
  }

  transpose(x: string, perm: readonly number[]): string {
    return this.op("Transpose", [x], { perm: [...perm] });
  }

  reduceSum(x: string, axes: readonly number[], keepDims: boolean): string {
    return this.op("ReduceSum", [x, this.int64s(axes)], { keepdims: keepDims ? 1 : 0 });
  }

  /** alpha · op(a) · op(b), batched over leading axes. */
  matMul(a: string, b: string, options: MatMulOptions = {}): string {
    const { transA = false, transB = false, alpha = 1, rank = 2 } = options;
    if (!transA && !transB && alpha === 1) return this.op("MatMul", [a, b]);
    const attributes = { transA: transA ? 1 : 0, transB: transB ? 1 : 0, alpha: { float: alpha } };
    return this.microsoftOp("FusedMatMul", [a, b], attributes, rank);
  }

  /** A tensor filled with one value. */
  fill(value: number, dtype: "float32" | "int32" | "bool", dims: readonly number[]): string {
    const element =
      dtype === "float32"
        ? Float32Array.of(value)
        : dtype === "int32"
          ? Int32Array.of(value)
          : Uint8Array.of(value);
    const bytes = new Uint8Array(element.buffer);
    return this.op("ConstantOfShape", [this.int64s(dims)], {
      value: { tensor: { dtype, dims: [1], bytes } },
    });
  }
}
