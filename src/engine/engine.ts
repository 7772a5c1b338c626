/**
 * The compute seam. A *program* is a plain function over tfjs tensors; an *engine* turns it into an executable:
 *
 *   onnx        traces the function once into one ONNX graph and runs it on ONNX Runtime (default)
 *   tensorflow  runs the function eagerly on @tensorflow/tfjs-node-gpu
 *   reference   runs it eagerly on tfjs' plain-JavaScript cpu backend (tests, gradient checks)
 *
 * Long-lived tensors (parameters, gradients, optimizer moments, KV caches) live in *arenas*: one flat float32
 * memory each, with named tensors at fixed offsets, so that an all-reduce, a checkpoint or a weight push is one
 * contiguous copy. A program names the arenas it uses and may return new values for tensors of the arenas it
 * opened with access "update".
 */
import type { Tensor } from "@tensorflow/tfjs";
import type { FrozenForm } from "./frozen-weights.js";
import type { Layout } from "./layout.js";

export type EngineName = "onnx" | "tensorflow" | "reference";
export type DType = "float32" | "int32";

export interface TensorSpec {
  readonly shape: readonly number[];
  readonly dtype: DType;
}

export type HostArray = Float32Array | Int32Array;
/** Dense row-major values on the host, by tensor name. */
export type HostArrays = Readonly<Record<string, HostArray>>;
export type Tensors = Readonly<Record<string, Tensor>>;

export interface Program {
  /**
   * Identifies function + shapes + constants: two programs with the same key must be interchangeable, because
   * engines cache executables by it. Example: `"ppo-actor-grad gpt2-2x64 B8 T48"`.
   */
  readonly key: string;
  /** Arenas by alias, e.g. `{ actor: {layout, access: "read"}, actorGrads: {layout, access: "update"} }`. */
  readonly arenas: Readonly<Record<string, ArenaUse>>;
  /** Per-call inputs by name. */
  readonly inputs: Readonly<Record<string, TensorSpec>>;
  /**
   * The computation. Called once per compile under `onnx`, once per run under the eager engines, always
   * synchronously and inside a tidy: it must not read tensor values, await, or keep tensors.
   */
  readonly body: (arenas: Readonly<Record<string, Tensors>>, inputs: Tensors) => ProgramResult;
}

export interface ArenaUse {
  readonly layout: Layout;
  /**
   * "frozen" is "read" of values that many runs share: the engine may work on a rearranged copy of them, which it makes
   * anew once `Arena.write`, `Arena.clear` or a program has changed them. It does not see writes through `Arena.read`.
   */
  readonly access: "read" | "frozen" | "update";
  /** Of an arena that holds matrices as int8; its access is "frozen". @default all float32 */
  readonly form?: FrozenForm;
}

export interface ProgramResult {
  /** Values returned to the caller, by name. */
  readonly outputs: Tensors;
  /** New values for tensors of arenas opened with "update": `updates[alias][tensorName]`, same shapes. */
  readonly updates?: Readonly<Record<string, Tensors>>;
}

/** One flat float32 memory, owned by an engine. */
export interface Arena {
  readonly layout: Layout;
  /**
   * The values. CPU engines return the live memory (no copy; writes through it are seen by the next run);
   * device engines download a copy. Treat it as valid until the next `run` that updates this arena.
   */
  read(): Promise<Float32Array>;
  /** Replaces all values. Copies; `values.length` must be `layout.size`. */
  write(values: Float32Array): Promise<void>;
  /** Sets every value to 0. */
  clear(): Promise<void>;
  dispose(): void;
}

export interface Executable {
  /**
   * Runs the program once, updates arenas in place, returns the outputs as fresh host arrays (scalars have
   * length 1); with `borrows` they may be overwritten by the next run of this executable, which saves a copy where runs
   * are waited for one by one.
   *
   * Runs may be started without waiting for each other; those that use an arena which one of them updates go in the
   * order of their start, so results never depend on timing.
   * @param arenas one arena per alias in `program.arenas`, created by the same engine with an equal layout
   * @param inputs one host array per name in `program.inputs`, length = product of its shape
   * @throws {TroupeError} SHAPE when a length, alias or name does not fit
   */
  run(
    arenas: Readonly<Record<string, Arena>>,
    inputs: HostArrays,
    options?: { readonly borrows?: boolean },
  ): Promise<HostArrays>;
}

export interface Engine {
  readonly name: EngineName;
  /** One line for logs: provider, device, threads, version. */
  readonly description: string;
  /** A zero-filled arena, or one holding a copy of `values`. */
  createArena(layout: Layout, values?: Float32Array): Arena;
  /**
   * An arena of zeros that holds matrices as int8, for programs that only read it. Left out by engines that cannot.
   * @throws {TroupeError} CONFIG where this installation cannot
   */
  createFrozenArena?(layout: Layout, form: FrozenForm): Arena;
  /**
   * An arena that lives in `memory` instead of its own. Left out by engines whose arenas are elsewhere.
   * @param memory `[layout.size]`
   */
  arenaOver?(layout: Layout, memory: Float32Array): Arena;
  /** Runs compiled as `sideBySide` that may be under way at once. @default 1 */
  readonly lanes?: number;
  /** Compiles, or returns the cached executable of the same key and use. */
  compile(program: Program, use?: ExecutableUse): Promise<Executable>;
  dispose(): Promise<void>;
}

export interface ExecutableUse {
  /**
   * How the engine's threads are used. false: every operation of a run is split over all of them, and the run is alone;
   * bits may depend on their number. true: one thread computes a run, beside as many others as there are threads; bits
   * do not depend on their number. @default false
   */
  readonly sideBySide?: boolean;
}

export interface EngineOptions {
  /** Threads one operation may use, or runs side by side. @default 1 */
  readonly threads?: number;
  /** onnx only: execution provider. @default "cpu" */
  readonly provider?: "cpu" | "webgpu" | "cuda";
}
