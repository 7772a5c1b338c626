/** Checks at the door of every engine that what a caller passes fits the program. */
import type { Tensor } from "@tensorflow/tfjs";
import { shapeError } from "../shared/errors.js";
import type { Arena, HostArrays, Program, ProgramResult } from "./engine.js";
import { FrozenArena } from "./frozen-weights.js";
import { sizeOf, type Layout } from "./layout.js";

/** @throws {TroupeError} SHAPE naming the program and the alias */
export function checkArenas(program: Program, arenas: Readonly<Record<string, Arena>>): void {
  for (const [alias, use] of Object.entries(program.arenas)) {
    const arena = arenas[alias];
    if (arena === undefined) throw shapeError(`program "${program.key}" needs an arena for "${alias}"`);
    if (!sameLayout(arena.layout, use.layout)) {
      throw shapeError(
        `program "${program.key}": the arena given for "${alias}" has another layout than the program's`,
      );
    }
    if (arena instanceof FrozenArena !== (use.form !== undefined)) {
      const nameOf = (isHeld: boolean) => (isHeld ? "int8" : "float32");
      throw shapeError(
        `program "${program.key}" reads "${alias}" as ${nameOf(use.form !== undefined)}, its arena holds ${nameOf(arena instanceof FrozenArena)}`,
      );
    }
  }
}

/** @throws {TroupeError} SHAPE naming the program and the input */
export function checkInputs(program: Program, inputs: HostArrays): void {
  for (const name of Object.keys(inputs)) {
    if (program.inputs[name] === undefined) {
      const known = Object.keys(program.inputs).join(", ");
      throw shapeError(`program "${program.key}" has no input "${name}"; it takes ${known}`);
    }
  }
  for (const [name, spec] of Object.entries(program.inputs)) {
    const values = inputs[name];
    if (values === undefined) throw shapeError(`program "${program.key}" needs an input "${name}"`);
    const isInt = values instanceof Int32Array;
    if (isInt !== (spec.dtype === "int32")) {
      const got = isInt ? "an Int32Array" : "a Float32Array";
      throw shapeError(`program "${program.key}": input "${name}" is ${spec.dtype}, got ${got}`);
    }
    if (values.length !== sizeOf(spec.shape)) {
      const shape = `[${spec.shape.join(", ")}]`;
      throw shapeError(`program "${program.key}": input "${name}" is ${shape}, got ${values.length} values`);
    }
  }
}

export interface Update {
  readonly alias: string;
  readonly tensorName: string;
  readonly tensor: Tensor;
}

/** The updates of a program's result, flat and checked. */
export function updatesOf(program: Program, result: ProgramResult): Update[] {
  const updates: Update[] = [];
  for (const [alias, tensors] of Object.entries(result.updates ?? {})) {
    const use = program.arenas[alias];
    if (use?.access !== "update") {
      throw shapeError(
        `program "${program.key}" updates "${alias}", which it did not open with access "update"`,
      );
    }
    for (const [tensorName, tensor] of Object.entries(tensors)) {
      const entry = use.layout.byName.get(tensorName);
      const expected = entry?.shape.join(", ");
      if (expected !== tensor.shape.join(", ") || tensor.dtype !== "float32") {
        const want = entry === undefined ? "no such tensor exists" : `it is float32 [${expected}]`;
        const got = `${tensor.dtype} [${tensor.shape.join(", ")}]`;
        throw shapeError(
          `program "${program.key}" updates "${alias}.${tensorName}" with ${got}, but ${want}`,
        );
      }
      updates.push({ alias, tensorName, tensor });
    }
  }
  return updates;
}

/** Layouts found equal: a decode step of half a millisecond would compare hundreds of names each time. */
const equalLayouts = new WeakMap<Layout, WeakSet<Layout>>();

function sameLayout(a: Layout, b: Layout): boolean {
  if (a === b || equalLayouts.get(a)?.has(b) === true) return true;
  if (a.size !== b.size || a.entries.length !== b.entries.length) return false;
  const isSame = a.entries.every((entry, i) => {
    const other = b.entries[i];
    return entry.name === other.name && entry.shape.join() === other.shape.join();
  });
  if (isSame) {
    const known = equalLayouts.get(a) ?? new WeakSet();
    equalLayouts.set(a, known.add(b));
  }
  return isSame;
}
