/** Clean-up of a finished graph, before lowering and serialising. */
import type { Graph, GraphNode } from "./graph.js";

/** Removes nodes and constants that no output needs. Nodes are in topological order and stay so. */
export function removeDeadNodes(graph: Graph): void {
  const needed = new Set(graph.outputs.map((output) => output.name));
  const live: GraphNode[] = [];
  for (let i = graph.nodes.length - 1; i >= 0; i--) {
    const node = graph.nodes[i];
    if (!node.outputs.some((output) => needed.has(output))) continue;
    live.push(node);
    for (const input of node.inputs) needed.add(input);
  }
  graph.nodes = live.reverse();
  graph.initializers = graph.initializers.filter((initializer) => needed.has(initializer.name));
}

/**
 * Lets the producer of a value write a graph output directly, instead of through the Identity that
 * `GraphBuilder.output` adds. An Identity stays where the value is itself an input, a constant or already an output.
 */
export function foldOutputIdentities(graph: Graph): void {
  const outputs = new Set(graph.outputs.map((output) => output.name));
  const produced = new Set(graph.nodes.flatMap((node) => node.outputs));
  const renamed = new Map<string, string>();
  graph.nodes = graph.nodes.filter((node) => {
    const [source] = node.inputs;
    const [target] = node.outputs;
    const folds =
      node.op === "Identity" &&
      outputs.has(target) &&
      produced.has(source) &&
      !outputs.has(source) &&
      !renamed.has(source);
    if (folds) renamed.set(source, target);
    return !folds;
  });
  const rename = (name: string) => renamed.get(name) ?? name;
  for (const node of graph.nodes) {
    node.inputs = node.inputs.map(rename);
    node.outputs = node.outputs.map(rename);
  }
}
