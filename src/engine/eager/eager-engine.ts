import * as tf from "@tensorflow/tfjs";
import type { Tensor } from "@tensorflow/tfjs";
import { describeError, shapeError, TroupeError } from "../../shared/errors.js";
import { checkArenas, checkInputs, updatesOf } from "../binding.js";
import type {
  Arena,
  Engine,
  EngineName,
  Executable,
  HostArray,
  HostArrays,
  Program,
  Tensors,
} from "../engine.js";
import { HostArena } from "../host-arena.js";
import type { Layout } from "../layout.js";
import { withBackend } from "./backend-scope.js";
import { ResidentArena } from "./resident-arena.js";

export interface EagerOptions {
  readonly name: EngineName;
  readonly description: string;
  /** A registered tfjs backend with a synchronous factory. */
  readonly backend: string;
  /** "host": arenas are plain memory, uploaded at every run. "device": they stay on the backend's device. */
  readonly arenas: "host" | "device";
}

/** Runs a program's body at every call, on a tfjs backend that computes at once. */
export class EagerEngine implements Engine {
  readonly name: EngineName;
  readonly description: string;
  readonly #executables = new Map<string, Executable>();

  constructor(private readonly options: EagerOptions) {
    this.name = options.name;
    this.description = options.description;
  }

  createArena(layout: Layout, values?: Float32Array): Arena {
    return this.options.arenas === "host"
      ? new HostArena(layout, values)
      : new ResidentArena(layout, this.options.backend, values);
  }

  async compile(program: Program): Promise<Executable> {
    let executable = this.#executables.get(program.key);
    if (executable === undefined) {
      executable = {
        run: async (arenas, inputs) => {
          checkArenas(program, arenas);
          checkInputs(program, inputs);
          return withBackend(this.options.backend, () => this.#run(program, arenas, inputs));
        },
      };
      this.#executables.set(program.key, executable);
    }
    return executable;
  }

  async dispose(): Promise<void> {
    this.#executables.clear();
  }

  #run(
    program: Program,
    arenas: Readonly<Record<string, Arena>>,
    inputs: HostArrays,
  ): Record<string, HostArray> {
    try {
      return runOnce(program, arenas, inputs);
    } catch (cause) {
      if (cause instanceof TroupeError) throw cause;
      const advice = isOutOfMemory(cause)
        ? "; raise cluster.microShards, or use a device with more memory"
        : "";
      const message = `engine ${this.name}: program "${program.key}" failed: ${describeError(cause)}${advice}`;
      throw new TroupeError("INTERNAL", message, { cause });
    }
  }
}

const isOutOfMemory = (error: unknown): boolean => /\bOOM\b|RESOURCE_EXHAUSTED/.test(describeError(error));

function runOnce(
  program: Program,
  arenas: Readonly<Record<string, Arena>>,
  inputs: HostArrays,
): Record<string, HostArray> {
  const outputs: Record<string, HostArray> = {};
  const applied: (() => void)[] = [];
  tf.tidy(() => {
    const arenaTensors = mapValues(program.arenas, (_use, alias) => tensorsOf(arenas[alias]));
    // Copies: tfjs-node reads an array when an op first needs it, and an update may be an input as it came.
    const inputTensors = mapValues(program.inputs, (spec, name) =>
      tf.tensor(inputs[name].slice(), [...spec.shape], spec.dtype),
    );
    const result = program.body(arenaTensors, inputTensors);
    for (const [name, tensor] of Object.entries(result.outputs)) outputs[name] = hostCopy(tensor);
    for (const { alias, tensorName, tensor } of updatesOf(program, result)) {
      applied.push(prepareUpdate(arenas[alias], tensorName, tensor));
    }
  });
  // Applied last: until here every output and update may still share memory with an arena.
  for (const apply of applied) apply();
  return outputs;
}

function tensorsOf(arena: Arena): Tensors {
  if (arena instanceof ResidentArena) return arena.tensors;
  const { values, layout } = hostArena(arena);
  return Object.fromEntries(
    layout.entries.map(({ name, offset, size, shape }) => [
      name,
      tf.tensor(values.subarray(offset, offset + size), [...shape]),
    ]),
  );
}

function prepareUpdate(arena: Arena, name: string, tensor: Tensor): () => void {
  if (arena instanceof ResidentArena) {
    const next = tf.keep(tf.clone(tensor));
    return () => arena.replace(name, next);
  }
  const values = hostCopy(tensor);
  const { values: memory, layout } = hostArena(arena);
  return () => memory.set(values, layout.byName.get(name)!.offset);
}

function hostArena(arena: Arena): HostArena {
  if (!(arena instanceof HostArena))
    throw shapeError("an arena of another engine was passed to an eager engine");
  return arena;
}

function hostCopy(tensor: Tensor): HostArray {
  const values = tensor.dataSync();
  return tensor.dtype === "float32" ? Float32Array.from(values) : Int32Array.from(values);
}

function mapValues<V, R>(
  record: Readonly<Record<string, V>>,
  map: (value: V, key: string) => R,
): Record<string, R> {
  return Object.fromEntries(Object.entries(record).map(([key, value]) => [key, map(value, key)]));
}
