import { afterAll, describe, expect, it } from "vitest";
import { GraphBuilder } from "../../../src/engine/trace/graph.js";
import { arrangeSegments } from "../../../src/engine/trace/segments.js";
import { traceProgram } from "../../../src/engine/trace/trace-program.js";
import { laySft } from "../../../src/learner/packed-rows.js";
import { makeLmGradProgram } from "../../../src/learner/programs.js";
import type { Recompute } from "../../../src/models/forward-pass.js";
import { sftRows } from "../learner/fixtures.js";
import { adapted, onnx, plainSpec, runOn } from "../lora/models.js";

const rows = sftRows(7)
  .slice(1)
  .map(({ ids }) => ({ ids, lossMask: new Uint8Array(ids.length).fill(1) }));
const [run] = laySft(rows, { budgetTokens: 256, hidden: 8, contextTokens: 16, padId: 1 });
const inputs = {
  ...{ ids: run.ids, starts: run.starts, at: run.at, labels: run.labels, mask: run.mask },
  denominator: Float32Array.of(run.sources.length),
};
afterAll(async () => (await onnx()).dispose());

describe("a gradient that computes its layers again", () => {
  it.each(["gpt2", "opt", "llama"])("has the same bits, %s with adapters and without", async (family) => {
    const { plain, base, spec, weights } = adapted(family);
    for (const [model, values] of [
      [plain, { trained: base, frozen: null }],
      [spec, weights],
    ] as const) {
      const of = (recompute: Recompute) =>
        runOn(model, values, makeLmGradProgram(model, run.shape, 1, recompute), inputs);
      const [kept, again] = [await of("none"), await of("layers")];
      expect(Math.max(...kept.grads!)).toBeGreaterThan(1e-3);
      expect(again.grads).toEqual(kept.grads);
      expect(again.outputs).toEqual(kept.outputs);
    }
  });

  it("keeps nothing between the passes but the inputs of its layers: the work in between is done twice", () => {
    const spec = plainSpec("gpt2");
    const nodesOf = (recompute: Recompute) =>
      traceProgram(makeLmGradProgram(spec, run.shape, 1, recompute), "cpu").graph.nodes;
    const heldInside = (recompute: Recompute) => {
      const nodes = nodesOf(recompute);
      const inner = new Set(
        nodes.filter(({ segment }) => segment !== undefined).flatMap((node) => node.outputs),
      );
      for (const { segment } of nodes) if (segment?.output !== undefined) inner.delete(segment.output);
      const backward = nodes.filter(({ segment }) => segment === undefined);
      return new Set(backward.flatMap((node) => node.inputs.filter((input) => inner.has(input)))).size;
    };
    expect(heldInside("none")).toBeGreaterThan(10 * spec.layers);
    expect(heldInside("layers")).toBe(0);
    const softmaxes = (recompute: Recompute) =>
      nodesOf(recompute).filter(({ op }) => op === "Softmax").length;
    expect(softmaxes("none")).toBe(spec.layers);
    expect(softmaxes("layers")).toBe(2 * spec.layers);
  });
});

describe("arrangeSegments", () => {
  /** A segment y = tanh(z), z = x·w, whose backward pass reads z. */
  function graphOf(isRecomputed: boolean): GraphBuilder {
    const graph = new GraphBuilder();
    const info = (name: string) => ({ name, dtype: "float32" as const, dims: [2, 2] });
    const [x, w, dy] = ["x", "w", "dy"].map((name) => graph.input(info(name)));
    const segment = { input: x, isRecomputed, output: "", outputGradient: "" };
    const z = graph.inSegment(segment, () => graph.op("MatMul", [x, w]));
    segment.output = graph.inSegment(segment, () => graph.op("Tanh", [z]));
    const late = graph.op("Neg", [dy]);
    segment.outputGradient = graph.op("Mul", [dy, graph.float(2)]);
    graph.output(info("dw"), graph.op("Mul", [segment.outputGradient, z]));
    graph.output(info("other"), late);
    return graph;
  }

  it("makes the gradient by a segment's output wait for what the part after it leaves behind", () => {
    const graph = graphOf(false);
    arrangeSegments(graph);
    const wait = graph.nodes.find(({ op }) => op === "Where")!;
    const reader = graph.nodes.find(({ outputs }) => outputs[0] === wait.inputs[2])!;
    const reshape = graph.nodes.find(({ outputs }) => outputs[0] === reader.inputs[0])!;
    expect(graph.nodes.find(({ outputs }) => outputs[0] === reshape.inputs[0])!.op).toBe("Neg");
    expect(graph.nodes.filter(({ op }) => op === "MatMul")).toHaveLength(1);
    expect(graph.nodes.find(({ op, inputs }) => op === "Mul" && inputs[0] === wait.outputs[0])).toBeDefined();
  });

  it("lets the backward pass read the copy, and everything in topological order", () => {
    const graph = graphOf(true);
    arrangeSegments(graph);
    expect(graph.nodes.filter(({ op }) => op === "MatMul")).toHaveLength(2);
    const known = new Set(["x", "w", "dy", ...graph.initializers.map(({ name }) => name)]);
    for (const node of graph.nodes) {
      for (const input of node.inputs) expect(known.has(input), input).toBe(true);
      for (const output of node.outputs) known.add(output);
    }
  });
});
