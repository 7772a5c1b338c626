import type { HostArray } from "../engine.js";
import type { FrozenMemory } from "../frozen-weights.js";
import type { Graph } from "../trace/graph.js";

/** What a graph reads in place. */
export type HostMemory = HostArray | FrozenMemory;

/** Runs ONNX models. Two implementations: the C API of the bundled library, and the public Node package. */
export interface Runner {
  /** One line for logs. */
  readonly description: string;
  /**
   * true: an output may be bound to the memory of an input, and is written there while the graph runs.
   * false: outputs arrive in their arrays after the run.
   */
  readonly writesInPlace: boolean;
  /** true: `load` takes the values of frozen constants from memory, and rearranges weights for fast products. */
  readonly freezes: boolean;
  /**
   * @param frozen values of `graph.frozen`, in its order; they must stay alive, in place and unchanged until the session
   *   is disposed of
   */
  load(model: Uint8Array, graph: Graph, frozen?: readonly HostMemory[]): Promise<Session>;
  dispose(): Promise<void>;
}

export interface Session {
  /**
   * Fixes the memory of every graph input and output, in graph order. The arrays must keep their size and stay
   * alive until the bound run is disposed of.
   */
  bind(inputs: readonly HostMemory[], outputs: readonly HostArray[]): BoundRun;
  dispose(): Promise<void>;
}

export interface BoundRun {
  run(): Promise<void>;
  dispose(): void;
}

export interface RunnerOptions {
  /** Threads one operation may use. */
  readonly threads: number;
  /** Longer runs are made on another thread, so that the caller can start the next. @default false */
  readonly leavesCaller?: boolean;
}
