/** Gradients of the learner's own programs against those that torch computes of transformers' models. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createEngine } from "../../../src/engine/create-engine.js";
import type { Engine, HostArrays } from "../../../src/engine/engine.js";
import { layPpo, laySft, type TokenRun } from "../../../src/learner/packed-rows.js";
import {
  makeCriticGradProgram,
  makeLmGradProgram,
  type GradientProgram,
} from "../../../src/learner/programs.js";
import { loadModelDir } from "../../../src/models/checkpoint-dir.js";
import { layoutOf, type ModelSpec } from "../../../src/models/model-spec.js";
import { FIXTURES, fixtureDir, fixtureHead, fixtureJson } from "./model-fixtures.js";

interface Expected {
  readonly loss: number;
  /** Of each tensor's gradient g: its norm, and Σ g[i]·cos(i). */
  readonly tensors: Readonly<Record<string, readonly [number, number]>>;
}

let engine: Engine;
beforeAll(async () => void ({ engine } = await createEngine({ name: "onnx" })));
afterAll(() => engine.dispose());

/** Both rows in one run, end to end. */
function trainingRun(
  spec: ModelSpec,
  rows: readonly number[][],
): { program: GradientProgram; inputs: HostArrays } {
  const layOptions = { budgetTokens: 64, hidden: spec.hidden, contextTokens: spec.contextTokens, padId: 47 };
  const denominator = Float32Array.of(rows.reduce((sum, row) => sum + row.length - 1, 0));
  const common = ({ ids, starts, at, mask }: TokenRun) => ({ ids, starts, at, mask, denominator });
  if (spec.head === "lm") {
    const lossMask = new Uint8Array(Math.max(...rows.map(({ length }) => length))).fill(1);
    const [run] = laySft(
      rows.map((row) => ({ ids: Int32Array.from(row), lossMask })),
      layOptions,
    );
    return {
      program: makeLmGradProgram(spec, run.shape, 1),
      inputs: { ...common(run), labels: run.labels },
    };
  }
  const [run] = layPpo(
    rows.map(([first, ...rest]) => {
      const zeros = new Float32Array(rest.length);
      const [promptIds, responseIds] = [Int32Array.of(first), Int32Array.from(rest)];
      const actionMask = new Uint8Array(rest.length).fill(1);
      return {
        promptIds,
        responseIds,
        actionMask,
        logprobs: zeros,
        values: zeros,
        advantages: zeros,
        returns: zeros,
      };
    }),
    layOptions,
  );
  const column = new Float32Array(run.shape.tokens);
  const returns = column.slice();
  run.sources.forEach(({ index }, n) => (returns[n] = 0.1 * (index + 1)));
  return {
    program: makeCriticGradProgram(spec, run.shape, { cliprangeValue: 1e6 }),
    inputs: { ...common(run), oldValues: column, returns },
  };
}

describe("a learner's gradients", () => {
  it.each(FIXTURES)("of %s are torch's within 1e-4 of each tensor's norm", async (name) => {
    const { spec, values } = await loadModelDir(fixtureDir(name), fixtureHead(name));
    const { rows } = fixtureJson(name, "expected.json") as { rows: number[][] };
    const expected = fixtureJson(name, "gradients.json") as Expected;
    const layout = layoutOf(spec);
    const { program, inputs } = trainingRun(spec, rows);
    const executable = await engine.compile(program);
    const [params, grads] = [engine.createArena(layout, values), engine.createArena(layout)];
    const outputs = await executable.run({ params, grads }, inputs);
    expect((outputs.loss ?? outputs.valueLoss)[0]).toBeCloseTo(expected.loss, 4);

    const gradients = await grads.read();
    expect(Object.keys(expected.tensors).sort()).toEqual(layout.entries.map((entry) => entry.name));
    for (const { name: tensor, offset, size } of layout.entries) {
      const [norm, projection] = expected.tensors[tensor];
      const gradient = gradients.subarray(offset, offset + size);
      const tolerance = 1e-4 * norm + 1e-6; // what rounding leaves of a gradient that is 0, as of key biases
      expect(Math.abs(Math.hypot(...gradient) - norm), tensor).toBeLessThan(tolerance);
      const projected = gradient.reduce((sum, value, i) => sum + value * Math.cos(i), 0);
      expect(Math.abs(projected - projection), tensor).toBeLessThan(tolerance);
    }
  });
});
