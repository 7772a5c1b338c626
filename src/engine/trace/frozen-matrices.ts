/** Rewrites products and look-ups of matrices that are held as int8 (see ../frozen-weights). */
import { TroupeError } from "../../shared/errors.js";
import { blockShape, INT8_ZERO, type BlockShape, type FrozenPart } from "../frozen-weights.js";
import type { LayoutEntry } from "../layout.js";
import { GraphBuilder, type GraphNode, type ValueInfo } from "./graph.js";

export interface FrozenMatrix {
  /** The float32 value that the traced program reads. */
  readonly value: string;
  readonly entry: LayoutEntry;
  readonly isOutIn: boolean;
}

/** A part of a matrix that the rewritten graph reads instead. */
export interface FrozenValue {
  readonly part: FrozenPart;
  readonly info: ValueInfo;
}

/** MatMulNBits' level for products of integers. */
const INTEGER_PRODUCTS = 4;

/** int8 matrices are constants: ONNX Runtime arranges them once, for all sessions, for its integer products. */
export function holdMatrix(graph: GraphBuilder, matrix: FrozenMatrix): FrozenValue[] {
  const { value, entry, isOutIn } = matrix;
  const shape = blockShape(entry, isOutIn);
  const { outputs, blocks, width } = shape;
  const bytes: ValueInfo = { name: `${value}#int8`, dtype: "uint8", dims: [outputs, blocks, width] };
  const scales: ValueInfo = { name: `${value}#scales`, dtype: "float32", dims: [outputs, blocks] };
  for (const info of [bytes, scales]) graph.freeze({ ...info, isShared: true });
  const names = { bytes: bytes.name, scales: scales.name };
  rewriteUses(graph, value, (scratch, node) =>
    node.op === "Gather" && node.inputs[0] === value && isOutIn
      ? int8Rows(scratch, node, names, shape)
      : int8Product(scratch, node, matrix, names, shape),
  );
  return [
    { part: "int8", info: bytes },
    { part: "scales", info: scales },
  ];
}

interface Int8Names {
  readonly bytes: string;
  readonly scales: string;
}

/** Rows of an embedding table. */
function int8Rows(
  graph: GraphBuilder,
  node: GraphNode,
  { bytes, scales }: Int8Names,
  { inputs, blocks, width }: BlockShape,
): string {
  const ids = node.inputs[1];
  const steps = graph.cast(graph.op("Gather", [bytes, ids], { axis: 0 }), "float32");
  const centred = graph.op("Sub", [steps, graph.float(INT8_ZERO)]);
  const rowScales = graph.op("Unsqueeze", [
    graph.op("Gather", [scales, ids], { axis: 0 }),
    graph.int64s([-1]),
  ]);
  const rows = graph.reshape(graph.op("Mul", [centred, rowScales]), [-1, blocks * width]);
  if (blocks * width === inputs) return rows;
  return graph.op("Slice", [rows, graph.int64s([0]), graph.int64s([inputs]), graph.int64s([1])]);
}

function int8Product(
  graph: GraphBuilder,
  node: GraphNode,
  matrix: FrozenMatrix,
  { bytes, scales }: Int8Names,
  { outputs, inputs, width }: BlockShape,
): string {
  const {
    transA = 0,
    transB = 0,
    alpha,
  } = node.attributes as {
    transA?: number;
    transB?: number;
    alpha?: { float: number };
  };
  const [x, w, bias] = node.inputs;
  const isProduct = ["MatMul", "Gemm", "FusedMatMul"].includes(node.op);
  if (!isProduct || w !== matrix.value || transA !== 0 || (transB === 1) !== matrix.isOutIn) {
    throw new TroupeError("INTERNAL", `${node.op} cannot read the int8 matrix ${matrix.entry.name}`);
  }
  const attributes = {
    ...{ K: inputs, N: outputs, bits: 8, block_size: width },
    accuracy_level: INTEGER_PRODUCTS,
  };
  const operands = bias === undefined ? [x, bytes, scales] : [x, bytes, scales, "", "", bias];
  const product = graph.microsoftOp("MatMulNBits", operands, attributes);
  const factor = alpha?.float ?? 1;
  return factor === 1 ? product : graph.op("Mul", [product, graph.float(factor)]);
}

/** Replaces every node that reads `value` by what `build` emits; its last value takes over the node's name. */
function rewriteUses(
  graph: GraphBuilder,
  value: string,
  build: (scratch: GraphBuilder, node: GraphNode) => string,
): void {
  graph.nodes = graph.nodes.flatMap((node) => {
    if (!node.inputs.includes(value)) return [node];
    const scratch = new GraphBuilder(`${node.outputs[0]}/held_`);
    const result = build(scratch, node);
    for (const made of scratch.nodes) {
      made.outputs = made.outputs.map((output) => (output === result ? node.outputs[0] : output));
      made.inputs = made.inputs.map((input) => (input === result ? node.outputs[0] : input));
    }
    graph.initializers.push(...scratch.initializers);
    return scratch.nodes;
  });
}
