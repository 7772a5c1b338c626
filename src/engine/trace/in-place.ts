/**
 * Which arena updates may be written straight into the memory that the graph also reads the old values from.
 *
 * A runtime may run a node as soon as its inputs exist. So an update may overwrite its tensor only if every node
 * that reads the old values is certain to have finished, or to be the writer itself working element by element:
 *
 *   1. every reader other than the writer is an ancestor of the writer (its result flows into it), and
 *   2. the writer, if it reads the old values, is an op that reads each element no later than it writes it.
 *
 * Everything else goes through scratch memory and is copied after the run.
 */
import type { Graph, GraphNode } from "./graph.js";

export interface AliasedPair {
  readonly inputName: string;
  readonly outputName: string;
}

/** Ops whose output may share memory with their input. */
const VIEW_OPS = new Set(["Reshape", "Identity", "Squeeze", "Unsqueeze", "Flatten", "Cast"]);

/** Element by element over operands of one size. */
const ELEMENTWISE_OPS = new Set([
  "Add",
  "Sub",
  "Mul",
  "Div",
  "Max",
  "Min",
  "Where",
  "Clip",
  "Neg",
  "Sqrt",
  "Exp",
  "Identity",
  "Reshape",
]);

/** May the writer's input at `position` share memory with its output at `outputIndex`? */
function sharesMemory(writer: GraphNode, position: number, outputIndex: number): boolean {
  if (ELEMENTWISE_OPS.has(writer.op)) return true;
  if (writer.op === "ScatterElements") return position === 0; // its data
  // past_key -> present_key, past_value -> present_value
  if (writer.op === "GroupQueryAttention") return position === outputIndex + 2;
  return false;
}

/** The pairs (a subset of `pairs`, by output name) that are safe to alias. */
export function safeInPlace(graph: Graph, pairs: readonly AliasedPair[]): Set<string> {
  const producer = new Map<string, GraphNode>();
  const readers = new Map<string, GraphNode[]>();
  for (const node of graph.nodes) {
    for (const output of node.outputs) producer.set(output, node);
    for (const input of new Set(node.inputs)) {
      const known = readers.get(input);
      if (known === undefined) readers.set(input, [node]);
      else known.push(node);
    }
  }
  const safe = new Set<string>();
  for (const { inputName, outputName } of pairs) {
    const writer = producer.get(outputName);
    if (writer === undefined) continue;
    const { views, nodes } = memoryReaders(inputName, readers);
    nodes.delete(writer);
    const outputIndex = writer.outputs.indexOf(outputName);
    const sharesAll = writer.inputs.every(
      (input, position) => !views.has(input) || sharesMemory(writer, position, outputIndex),
    );
    if (!sharesAll) continue;
    if (areAncestors(nodes, writer, producer)) safe.add(outputName);
  }
  return safe;
}

/** Every value that may share memory with `value`, and every node that reads one of them. */
function memoryReaders(value: string, readers: ReadonlyMap<string, readonly GraphNode[]>) {
  const nodes = new Set<GraphNode>();
  const views = new Set<string>([value]);
  for (const view of views) {
    for (const node of readers.get(view) ?? []) {
      nodes.add(node);
      if (VIEW_OPS.has(node.op)) node.outputs.forEach((output) => views.add(output));
    }
  }
  return { views, nodes };
}

function areAncestors(
  nodes: ReadonlySet<GraphNode>,
  of: GraphNode,
  producer: ReadonlyMap<string, GraphNode>,
): boolean {
  const missing = new Set(nodes);
  const seen = new Set<GraphNode>();
  const pending = [of];
  while (pending.length > 0 && missing.size > 0) {
    for (const input of pending.pop()!.inputs) {
      const node = producer.get(input);
      if (node === undefined || seen.has(node)) continue;
      seen.add(node);
      missing.delete(node);
      pending.push(node);
    }
  }
  return missing.size === 0;
}
