/**
 * A tfjs backend that records instead of computing: every kernel call, including those that tfjs' autodiff makes,
 * becomes nodes of an ONNX graph. What comes out of one traced call is the whole computation as one static graph.
 *
 * A tensor on this backend is either a *constant* (it has values, given by the program) or *traced* (it has the
 * name of a graph value). Constants enter a graph when a kernel first uses them.
 */
import * as tf from "@tensorflow/tfjs";
import type { backend_util, DataType, Tensor, TensorInfo } from "@tensorflow/tfjs";
import { TroupeError } from "../../shared/errors.js";
import { withBackend } from "../eager/backend-scope.js";
import type { GraphBuilder } from "./graph.js";

export const TRACE_BACKEND = "onnx-trace";

/** A scatter-add that another Add may start from instead of zeros (see kernels/gather.ts). */
export interface PendingScatter {
  /** int64 `[n, rest]` row of each update element. */
  readonly indices: string;
  /** `[n, rest]` */
  readonly updates: string;
  readonly rows: number;
  readonly rest: number;
}

interface TraceData {
  readonly values?: backend_util.TypedArray;
  readonly shape: number[];
  readonly dtype: DataType;
  /** Graph that `name` belongs to. */
  graph?: GraphBuilder;
  name?: string;
  scatter?: PendingScatter;
}

export class TraceBackend extends tf.KernelBackend {
  readonly #data = new tf.DataStorage<TraceData>(this, tf.engine());
  #graph: GraphBuilder | null = null;

  /** The graph being traced. */
  get graph(): GraphBuilder {
    if (this.#graph === null) throw new TroupeError("INTERNAL", "a traced op ran outside a trace");
    return this.#graph;
  }

  /** Runs `record` with its tensor ops going to `graph`. */
  trace<T>(graph: GraphBuilder, record: () => T): T {
    if (this.#graph !== null) throw new TroupeError("INTERNAL", "traces do not nest");
    this.#graph = graph;
    try {
      return withBackend(TRACE_BACKEND, record);
    } finally {
      this.#graph = null;
    }
  }

  /** The result of a kernel. */
  info(name: string, shape: readonly number[], dtype: DataType): TensorInfo {
    const dataId = {};
    this.#data.set(dataId, { graph: this.graph, name, shape: [...shape], dtype });
    return { dataId, shape: [...shape], dtype };
  }

  /** A tensor for a value that a fused op added to the graph. */
  tensor(name: string, shape: readonly number[], dtype: DataType = "float32"): Tensor {
    return tf.engine().makeTensorFromTensorInfo(this.info(name, shape, dtype));
  }

  /** The graph value of a tensor. */
  name(info: TensorInfo): string {
    const data = this.#data.get(info.dataId);
    if (data.graph === this.graph && data.name !== undefined) return data.name;
    if (data.values === undefined) {
      throw new TroupeError("INTERNAL", "a program used a tensor that another program's trace made");
    }
    data.name = this.#constant(data.values, data.dtype, data.shape);
    data.graph = this.graph;
    return data.name;
  }

  /** The same value under another shape-preserving view: no node. */
  alias(info: TensorInfo): TensorInfo {
    const source = this.#data.get(info.dataId);
    const dataId = {};
    this.#data.set(dataId, { ...source, graph: this.graph, name: this.name(info) });
    return { dataId, shape: info.shape, dtype: info.dtype };
  }

  /** Values of a tensor known while tracing, or undefined. */
  constantValues(info: TensorInfo): backend_util.TypedArray | undefined {
    return this.#data.get(info.dataId).values;
  }

  pendingScatter(info: TensorInfo): PendingScatter | undefined {
    const data = this.#data.get(info.dataId);
    return data.graph === this.graph ? data.scatter : undefined;
  }

  markScatter(info: TensorInfo, scatter: PendingScatter): void {
    this.#data.get(info.dataId).scatter = scatter;
  }

  #constant(values: backend_util.TypedArray, dtype: DataType, shape: number[]): string {
    if (dtype !== "float32" && dtype !== "int32" && dtype !== "bool") {
      throw new TroupeError(
        "INTERNAL",
        `a program uses a ${dtype} tensor; float32, int32 and bool can be traced`,
      );
    }
    const first = values[0];
    if (values.length > 64 && values.every((value) => value === first))
      return this.graph.fill(first, dtype, shape);
    const typed = dtype === "float32" ? Float32Array : dtype === "int32" ? Int32Array : Uint8Array;
    return this.graph.constant(dtype, shape, typed.from(values));
  }

  // What tfjs asks of every backend. Nothing is ever freed: data lives as long as its tensors' dataIds.

  override write(values: backend_util.BackendValues, shape: number[], dtype: DataType): object {
    const dataId = {};
    this.move(dataId, values, shape, dtype);
    return dataId;
  }

  override move(dataId: object, values: backend_util.BackendValues, shape: number[], dtype: DataType): void {
    this.#data.set(dataId, { values: values as backend_util.TypedArray, shape, dtype });
  }

  override readSync(dataId: object): backend_util.TypedArray {
    const { values } = this.#data.get(dataId);
    if (values === undefined) {
      throw new TroupeError(
        "INTERNAL",
        "a program's body read a tensor's values; it runs before there are any",
      );
    }
    return values;
  }

  override async read(dataId: object): Promise<backend_util.TypedArray> {
    return this.readSync(dataId);
  }

  override numDataIds(): number {
    return this.#data.numDataIds();
  }
  override disposeData(): boolean {
    return true;
  }
  override incRef(): void {}
  decRef(): void {}
  override refCount(): number {
    return 1;
  }
  override memory(): { unreliable: boolean } {
    return { unreliable: true };
  }
  override timerAvailable(): boolean {
    return false;
  }
  override floatPrecision(): 16 | 32 {
    return 32;
  }
  override epsilon(): number {
    return 1e-7; // tfjs' value for float32 backends
  }
  override dispose(): void {}
}

let instance: TraceBackend | null = null;

/** The one trace backend of this process, registered with tfjs on first use. */
export function traceBackend(): TraceBackend {
  if (instance === null) {
    const backend = new TraceBackend();
    instance = backend;
    tf.registerBackend(TRACE_BACKEND, () => backend, 0);
  }
  return instance;
}

/** The trace in progress, or null when tensor ops compute at once. */
export function activeTrace(): TraceBackend | null {
  return instance !== null && tf.engine().backendName === TRACE_BACKEND ? instance : null;
}
