import { describe, expect, it } from "vitest";
import { GraphBuilder } from "../../../src/engine/trace/graph.js";
import { safeInPlace } from "../../../src/engine/trace/in-place.js";
import { foldOutputIdentities, removeDeadNodes } from "../../../src/engine/trace/passes.js";

const info = (name: string) => ({ name, dtype: "float32" as const, dims: [2, 2] });

/** A graph of inputs w and g whose output w' is what `build` returns; other outputs it may declare itself. */
function isSafe(build: (graph: GraphBuilder, w: string, g: string) => string): boolean {
  const graph = new GraphBuilder();
  const [w, g] = ["w", "g"].map((name) => graph.input(info(name)));
  graph.output(info("w'"), build(graph, w, g));
  removeDeadNodes(graph);
  foldOutputIdentities(graph);
  return safeInPlace(graph, [{ inputName: "w", outputName: "w'" }]).has("w'");
}

describe("an update is written over its old value", () => {
  it("when its own element-wise writer is the only reader", () => {
    expect(isSafe((graph, w, g) => graph.op("Add", [w, g]))).toBe(true);
  });

  it("when every other reader's result flows into the writer", () => {
    expect(isSafe((graph, w, g) => graph.op("Sub", [graph.op("Mul", [w, w]), g]))).toBe(true);
  });

  it("when the writer scatters onto it", () => {
    expect(isSafe((graph, w, g) => graph.op("ScatterElements", [w, "indices", g]))).toBe(true);
  });
});

describe("an update is copied after the run", () => {
  it("when an independent node reads the old value too", () => {
    expect(
      isSafe((graph, w, g) => {
        graph.output(info("other"), graph.op("Exp", [w]));
        return graph.op("Add", [w, g]);
      }),
    ).toBe(false);
  });

  it("when that node reads it through a reshape", () => {
    expect(
      isSafe((graph, w, g) => {
        graph.output(info("other"), graph.op("Exp", [graph.reshape(w, [4])]));
        return graph.op("Add", [w, g]);
      }),
    ).toBe(false);
  });

  it("when the writer reads elements after it wrote others", () => {
    expect(isSafe((graph, w) => graph.transpose(w, [1, 0]))).toBe(false);
    expect(isSafe((graph, w, g) => graph.matMul(w, g))).toBe(false);
    expect(isSafe((graph, w, g) => graph.op("ScatterElements", [g, "indices", w]))).toBe(false);
  });
});

describe("clean-up passes", () => {
  it("drop what no output needs, and let a producer write its output itself", () => {
    const graph = new GraphBuilder();
    const x = graph.input(info("x"));
    graph.op("Exp", [graph.op("Add", [x, graph.float(3)])]);
    graph.output(info("y"), graph.op("Neg", [x]));
    removeDeadNodes(graph);
    foldOutputIdentities(graph);
    expect(graph.nodes.map(({ op, outputs }) => [op, outputs])).toEqual([["Neg", ["y"]]]);
    expect(graph.initializers).toEqual([]);
  });

  it("keep a copy where one value serves two outputs or an input is returned", () => {
    const graph = new GraphBuilder();
    const x = graph.input(info("x"));
    const y = graph.op("Neg", [x]);
    for (const [name, value] of Object.entries({ first: y, second: y, same: x }))
      graph.output(info(name), value);
    removeDeadNodes(graph);
    foldOutputIdentities(graph);
    expect(graph.nodes.map(({ op, inputs, outputs }) => [op, inputs[0], outputs[0]])).toEqual([
      ["Neg", "x", "first"],
      ["Identity", "first", "second"],
      ["Identity", "x", "same"],
    ]);
  });
});
