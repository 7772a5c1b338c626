/** Rewrites of a traced graph for execution providers that lack some of the ops it uses. */
import { GraphBuilder, type Graph, type GraphNode } from "./graph.js";

export type Target = "cpu" | "webgpu" | "cuda";

type Rewrite = (graph: GraphBuilder, node: GraphNode) => string[];

/** Matrix product with transposes and a factor, from ops that every provider has. */
const plainMatMul: Rewrite = (graph, node) => {
  const { transA, transB, alpha } = node.attributes as {
    transA: number;
    transB: number;
    alpha: { float: number };
  };
  const [a, b] = node.inputs;
  const rank = node.rank ?? 2;
  if (rank === 2) return [graph.op("Gemm", [a, b], { transA, transB, alpha })];
  const swapLast = Array.from({ length: rank }, (_, i) => (i < rank - 2 ? i : 2 * rank - 3 - i));
  const operand = (x: string, isTransposed: number) => (isTransposed ? graph.transpose(x, swapLast) : x);
  const product = graph.op("MatMul", [operand(a, transA), operand(b, transB)]);
  return [alpha.float === 1 ? product : graph.op("Mul", [product, graph.float(alpha.float)])];
};

const plainLogSoftmax: Rewrite = (graph, node) => {
  const [x] = node.inputs;
  const axes = graph.int64s([node.attributes.axis as number]);
  const shifted = graph.op("Sub", [x, graph.op("ReduceMax", [x, axes], { keepdims: 1 })]);
  const total = graph.op("ReduceSum", [graph.op("Exp", [shifted]), axes], { keepdims: 1 });
  return [graph.op("Sub", [shifted, graph.op("Log", [total])])];
};

/** WebGPU's kernel leaves its second result, 1/√(mean(x²) + ε), unwritten. */
const plainRmsNorm: Rewrite = (graph, node) => {
  const [x, weight] = node.inputs;
  const { epsilon } = node.attributes as { epsilon: { float: number } };
  const meanSquare = graph.op("ReduceMean", [graph.op("Mul", [x, x]), graph.int64s([-1])], { keepdims: 1 });
  const root = graph.op("Sqrt", [graph.op("Add", [meanSquare, graph.float(epsilon.float)])]);
  const inverse = graph.op("Reciprocal", [root]);
  return [graph.op("Mul", [graph.op("Mul", [x, inverse]), weight]), inverse];
};

/** π in two parts: the first has 8 bits, so that its product with any integer below 2¹⁶ is exact. */
const PI_HIGH = 3.140625;
const PI_LOW = Math.PI - PI_HIGH;

/**
 * Sine and cosine to float32 precision. WGSL promises only 2⁻¹¹ between −π and π and nothing beyond, which rotary
 * embeddings of far positions would feel.
 *
 *   sin x = (−1)ᵏ sin r,  r = x − kπ,  k = round(x/π)        cos x = −(−1)ᵏ sin r,  r = x − (k + ½)π,  k = round(x/π − ½)
 */
const preciseWave =
  (wave: "sin" | "cos"): Rewrite =>
  (graph, node) => {
    const [x] = node.inputs;
    const shift = wave === "sin" ? 0 : 0.5;
    const times = (a: string, b: number) => graph.op("Mul", [a, graph.float(b)]);
    const plus = (a: string, b: number) => graph.op("Add", [a, graph.float(b)]);
    const k = graph.op("Floor", [plus(times(x, 1 / Math.PI), 0.5 - shift)]);
    const turns = plus(k, shift);
    const r = graph.op("Sub", [graph.op("Sub", [x, times(turns, PI_HIGH)]), times(turns, PI_LOW)]);
    const square = graph.op("Mul", [r, r]);
    // Taylor to r¹¹: the rest is below 6e-8 on |r| ≤ π/2.
    const coefficients = [-1 / 39916800, 1 / 362880, -1 / 5040, 1 / 120, -1 / 6];
    const start = graph.float(coefficients[0]);
    const series = [...coefficients.slice(1), 1].reduce(
      (sum, coefficient) => plus(graph.op("Mul", [sum, square]), coefficient),
      start,
    );
    const isOdd = graph.op("Sub", [k, times(graph.op("Floor", [times(k, 0.5)]), 2)]);
    const sign = wave === "sin" ? plus(times(isOdd, -2), 1) : plus(times(isOdd, 2), -1);
    return [graph.op("Mul", [graph.op("Mul", [r, series]), sign])];
  };

const WEBGPU: Readonly<Record<string, Rewrite>> = {
  FusedMatMul: plainMatMul,
  LogSoftmax: plainLogSoftmax,
  SimplifiedLayerNormalization: plainRmsNorm,
  Sin: preciseWave("sin"),
  Cos: preciseWave("cos"),
};

const REWRITES: Readonly<Record<Target, Readonly<Record<string, Rewrite>>>> = {
  cpu: {},
  cuda: {},
  webgpu: WEBGPU,
};

/** Replaces what `target` cannot run. Works in place. */
export function lower(graph: Graph, target: Target): void {
  const rewrites = REWRITES[target];
  const nodes: GraphNode[] = [];
  graph.nodes.forEach((node, index) => {
    const rewrite = rewrites[node.op];
    if (rewrite === undefined) {
      nodes.push(node);
      return;
    }
    const scratch = new GraphBuilder(`lowered${index}_`);
    const results = rewrite(scratch, node);
    // The results of a rewrite take over the names that the rest of the graph knows.
    const rename = (name: string) => {
      const position = results.indexOf(name);
      return position < 0 ? name : (node.outputs[position] ?? name);
    };
    for (const replacement of scratch.nodes) {
      replacement.inputs = replacement.inputs.map(rename);
      replacement.outputs = replacement.outputs.map(rename);
    }
    nodes.push(...scratch.nodes);
    graph.initializers.push(...scratch.initializers);
  });
  graph.nodes = nodes;
}
