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

const WEBGPU: Readonly<Record<string, Rewrite>> = { FusedMatMul: plainMatMul, LogSoftmax: plainLogSoftmax };

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
    // The last node of a rewrite takes over the name that the rest of the graph knows.
    for (const replacement of scratch.nodes) {
      replacement.outputs = replacement.outputs.map((name) => {
        const position = results.indexOf(name);
        return position < 0 ? name : node.outputs[position];
      });
    }
    nodes.push(...scratch.nodes);
    graph.initializers.push(...scratch.initializers);
  });
  graph.nodes = nodes;
}
