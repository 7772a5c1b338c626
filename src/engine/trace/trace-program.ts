import * as tf from "@tensorflow/tfjs";
import type { Tensor } from "@tensorflow/tfjs";
import { updatesOf } from "../binding.js";
import type { DType, Program, Tensors } from "../engine.js";
import { traceBackend, type TraceBackend } from "./backend.js";
import { GraphBuilder, type Graph, type ValueInfo } from "./graph.js";
import type { FrozenPart } from "../frozen-weights.js";
import { holdMatrix } from "./frozen-matrices.js";
import { safeInPlace } from "./in-place.js";
import { arrangeSegments } from "./segments.js";
import { registerTraceKernels } from "./kernels/register.js";
import { lower, type Target } from "./lowering.js";
import { foldOutputIdentities, removeDeadNodes } from "./passes.js";

/** A graph input that is a tensor of an arena. */
export interface ArenaValue {
  readonly kind: "arena";
  readonly alias: string;
  readonly tensorName: string;
  readonly info: ValueInfo;
  /** Of a matrix that is held as int8: what of it. */
  readonly part?: FrozenPart;
}

/** A graph input that the caller passes at every run, or an output returned to it. */
export interface CallValue {
  readonly kind: "call";
  readonly name: string;
  readonly info: ValueInfo;
}

/** A graph output that is the new value of an arena's tensor. */
export interface UpdateValue extends Omit<ArenaValue, "kind"> {
  readonly kind: "update";
  /** It may be written over the old value while the graph runs. */
  readonly isInPlace: boolean;
}

export interface TracedProgram {
  readonly graph: Graph;
  /** In the order of `graph.inputs`; values the computation does not use are left out. */
  readonly inputs: readonly (ArenaValue | CallValue)[];
  /** In the order of `graph.frozen`. */
  readonly frozen: readonly ArenaValue[];
  /** In the order of `graph.outputs`. */
  readonly outputs: readonly (UpdateValue | CallValue)[];
}

/**
 * Runs a program's body once on the recording backend and returns its computation as a graph for `target`.
 * @param freezes tensors of frozen arenas become constants instead of inputs
 */
export function traceProgram(program: Program, target: Target, freezes = false): TracedProgram {
  registerTraceKernels();
  const backend = traceBackend();
  const graph = new GraphBuilder();
  const inputs = new Map<string, ArenaValue | CallValue>();
  const outputs: (Omit<UpdateValue, "isInPlace"> | CallValue)[] = [];

  backend.trace(graph, () =>
    tf.tidy(() => {
      const result = program.body(
        arenaInputs(program, backend, inputs, freezes),
        callInputs(program, backend, inputs),
      );
      for (const [name, tensor] of Object.entries(result.outputs)) {
        const info = declareOutput(backend, `output/${name}`, tensor);
        outputs.push({ kind: "call", name, info });
      }
      for (const { alias, tensorName, tensor } of updatesOf(program, result)) {
        const info = declareOutput(backend, `update/${alias}/${tensorName}`, tensor);
        outputs.push({ kind: "update", alias, tensorName, info });
      }
    }),
  );

  holdMatrices(program, graph, inputs);
  arrangeSegments(graph);
  removeDeadNodes(graph);
  foldOutputIdentities(graph);
  lower(graph, target);
  const used = new Set(graph.nodes.flatMap((node) => node.inputs));
  const isFrozen = ({ info }: ArenaValue | CallValue) => graph.isFrozen(info.name);
  const usedValues = [...inputs.values()].filter(({ info }) => used.has(info.name));
  const usedInputs = usedValues.filter((value) => !isFrozen(value));
  const frozen = usedValues.filter(isFrozen) as ArenaValue[];
  const inPlace = safeInPlace(graph, aliasedPairs(outputs));
  return {
    graph: {
      nodes: graph.nodes,
      initializers: graph.initializers,
      frozen: frozen.map(({ info }) => graph.frozen.find(({ name }) => name === info.name)!),
      inputs: usedInputs.map(({ info }) => info),
      outputs: graph.outputs,
    },
    inputs: usedInputs,
    frozen,
    outputs: outputs.map((output) =>
      output.kind === "call" ? output : { ...output, isInPlace: inPlace.has(output.info.name) },
    ),
  };
}

/** Rewrites the uses of matrices that their arena holds as int8, and adds what is read instead to `inputs`. */
function holdMatrices(
  program: Program,
  graph: GraphBuilder,
  inputs: Map<string, ArenaValue | CallValue>,
): void {
  for (const [alias, { layout, form }] of Object.entries(program.arenas)) {
    if (form === undefined) continue;
    for (const [tensorName, { isOutIn }] of Object.entries(form.matrices)) {
      const value = arenaInputName(alias, tensorName);
      const matrix = { value, entry: layout.byName.get(tensorName)!, isOutIn };
      for (const { part, info } of holdMatrix(graph, matrix)) {
        inputs.set(info.name, { kind: "arena", alias, tensorName, part, info });
      }
    }
  }
}

const arenaInputName = (alias: string, tensorName: string) => `arena/${alias}/${tensorName}`;

function arenaInputs(
  program: Program,
  backend: TraceBackend,
  inputs: Map<string, ArenaValue | CallValue>,
  freezes: boolean,
): Record<string, Tensors> {
  const arenas: Record<string, Tensors> = {};
  for (const [alias, { layout, access }] of Object.entries(program.arenas)) {
    const tensors: Record<string, Tensor> = {};
    for (const { name: tensorName, shape } of layout.entries) {
      const info: ValueInfo = { name: arenaInputName(alias, tensorName), dtype: "float32", dims: shape };
      inputs.set(info.name, { kind: "arena", alias, tensorName, info });
      const value = freezes && access === "frozen" ? backend.graph.freeze(info) : backend.graph.input(info);
      tensors[tensorName] = backend.tensor(value, shape, "float32");
    }
    arenas[alias] = tensors;
  }
  return arenas;
}

function callInputs(
  program: Program,
  backend: TraceBackend,
  inputs: Map<string, ArenaValue | CallValue>,
): Tensors {
  const tensors: Record<string, Tensor> = {};
  for (const [name, { shape, dtype }] of Object.entries(program.inputs)) {
    const info: ValueInfo = { name: `input/${name}`, dtype, dims: shape };
    inputs.set(info.name, { kind: "call", name, info });
    tensors[name] = backend.tensor(backend.graph.input(info), shape, dtype);
  }
  return tensors;
}

/** Booleans leave a program as int32 0 and 1. */
function declareOutput(backend: TraceBackend, name: string, tensor: Tensor): ValueInfo {
  const { graph } = backend;
  const isBool = tensor.dtype === "bool";
  const dtype: DType = tensor.dtype === "float32" ? "float32" : "int32";
  const info: ValueInfo = { name, dtype, dims: tensor.shape };
  const value = backend.name(tensor);
  graph.output(info, isBool ? graph.cast(value, "int32") : value);
  return info;
}

function aliasedPairs(outputs: readonly (Omit<UpdateValue, "isInPlace"> | CallValue)[]) {
  return outputs.flatMap((output) =>
    output.kind === "update"
      ? [{ inputName: arenaInputName(output.alias, output.tensorName), outputName: output.info.name }]
      : [],
  );
}
