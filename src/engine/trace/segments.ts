/**
 * Keeps the peak of a gradient's memory low. Two rewrites of a traced graph, at the borders of segments of its forward
 * pass (the layers of a model); neither changes a bit of any result.
 *
 * *Order.* A runtime orders nodes by what they need, and the weight gradients are needed by nobody: ONNX Runtime puts
 * them last, which keeps every layer's activations and their gradients alive to the end. So the gradient dy that leaves a
 * layer towards the one before it is made to wait for that layer's weight gradients.
 *
 * *Recomputation*, where a segment asks for it: what the backward pass reads of the segment's forward pass is computed a
 * second time, from the segment's input, and not before dy has come. In between only the inputs of segments are kept.
 *
 * To wait is to go through `Where(true, value, scalar)`, the scalar being made of the first elements of what is waited
 * for: it always chooses `value`, and no optimizer can see that.
 */
import { GraphBuilder, type GraphNode, type Segment } from "./graph.js";

/** Rewrites the graph in place. Nodes are in topological order and stay so. */
export function arrangeSegments(graph: GraphBuilder): void {
  const originals = [...graph.nodes];
  const segments = differentiated(originals);
  if (segments.length === 0) return;
  const producers = new Map<string, GraphNode>();
  for (const node of originals) for (const output of node.outputs) producers.set(output, node);
  const added = new Map<GraphNode, GraphNode[]>();
  const after = (gradient: string, build: (scratch: GraphBuilder) => void): void => {
    const anchor = producers.get(gradient)!;
    const scratch = new GraphBuilder(`${gradient}/`);
    build(scratch);
    added.set(anchor, [...(added.get(anchor) ?? []), ...scratch.nodes]);
    graph.initializers.push(...scratch.initializers);
  };

  const borders = bordersOf(originals, segments);
  const renamed = new Map<string, string>();
  for (const { segment, pending } of borders) {
    const gradient = segment.outputGradient!;
    after(gradient, (scratch) => {
      const released = pending.length === 0 ? gradient : waitFor(scratch, gradient, pending);
      renamed.set(gradient, released);
      if (!segment.isRecomputed) return;
      const copy = new SegmentCopy(segment, producers, waitFor(scratch, segment.input, [released]));
      for (const node of originals) {
        if (node.segment !== undefined) continue;
        node.inputs = node.inputs.map((input) => copy.valueFor(input));
      }
      scratch.nodes.push(...copy.nodes);
    });
  }
  const indexOf = new Map(originals.map((node, i) => [node, i]));
  for (const node of originals) {
    if (node.segment !== undefined) continue;
    node.inputs = node.inputs.map((input) => {
      const anchor = renamed.has(input) ? indexOf.get(producers.get(input)!)! : Infinity;
      return indexOf.get(node)! > anchor ? renamed.get(input)! : input;
    });
  }
  graph.nodes = originals.flatMap((node) => [node, ...(added.get(node) ?? [])]);
}

/** Segments that a gradient went through. */
function differentiated(nodes: readonly GraphNode[]): Segment[] {
  const segments = new Set(nodes.flatMap(({ segment }) => (segment === undefined ? [] : [segment])));
  return [...segments].filter(({ outputGradient }) => outputGradient !== undefined);
}

/** The segments in the order of the backward pass, each with the values made since the last border that outlive it. */
function bordersOf(nodes: readonly GraphNode[], segments: readonly Segment[]) {
  const position = new Map<string, number>();
  const lastUse = new Map<string, number>();
  nodes.forEach((node, i) => {
    for (const output of node.outputs) position.set(output, i);
    for (const input of node.inputs) lastUse.set(input, i);
  });
  const forwardEnd = nodes.reduce((last, { segment }, i) => (segment === undefined ? last : i), -1);
  const ordered = segments
    .map((segment) => ({ segment, at: position.get(segment.outputGradient!)! }))
    .sort((a, b) => a.at - b.at);
  let start = forwardEnd + 1;
  return ordered.map(({ segment, at }) => {
    const pending = nodes
      .slice(start, at)
      .flatMap(({ outputs }) => outputs)
      .filter((output) => (lastUse.get(output) ?? Infinity) > at && output !== segment.outputGradient);
    start = at + 1;
    return { segment, pending };
  });
}

/** `value`, not before all of `pending` exist. */
function waitFor(graph: GraphBuilder, value: string, pending: readonly string[]): string {
  const scalars = pending.map((one) =>
    graph.op("Gather", [graph.reshape(one, [-1]), graph.int64s([0])], { axis: 0 }),
  );
  const signal = scalars.length === 1 ? scalars[0] : graph.op("Sum", scalars);
  const condition = graph.constant("bool", [1], Uint8Array.of(1));
  return graph.op("Where", [condition, value, signal]);
}

/** The second forward pass of a segment, as far as it is needed. */
class SegmentCopy {
  /** In topological order. */
  readonly nodes: GraphNode[] = [];
  private readonly names: Map<string, string>;

  constructor(
    private readonly segment: Segment,
    private readonly producers: ReadonlyMap<string, GraphNode>,
    input: string,
  ) {
    this.names = new Map([[segment.input, input]]);
  }

  /** What the backward pass reads for `value`: the copy of an inner value of the segment, else the value itself. */
  valueFor(value: string): string {
    const isInner = this.producers.get(value)?.segment === this.segment && value !== this.segment.output;
    return isInner ? this.copyOf(value) : value;
  }

  private copyOf(value: string): string {
    const known = this.names.get(value);
    if (known !== undefined) return known;
    const node = this.producers.get(value);
    if (node?.segment !== this.segment) return value;
    const inputs = node.inputs.map((input) => this.copyOf(input));
    const { segment: _segment, ...rest } = node;
    const outputs = node.outputs.map((output) => `${output}/again`);
    node.outputs.forEach((output, i) => this.names.set(output, outputs[i]));
    this.nodes.push({ ...rest, inputs, outputs });
    return this.names.get(value)!;
  }
}
