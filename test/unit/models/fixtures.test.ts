import * as tf from "@tensorflow/tfjs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createEngine } from "../../../src/engine/create-engine.js";
import type { Engine } from "../../../src/engine/engine.js";
import { loadModelDir } from "../../../src/models/checkpoint-dir.js";
import { headWeight, hiddenStates, specKey } from "../../../src/models/forward.js";
import { layoutOf } from "../../../src/models/model-spec.js";
import { FIXTURES, fixtureDir, fixtureHead, fixtureJson } from "./model-fixtures.js";
import { tokenValues } from "./whole-sequences.js";

interface Expected {
  readonly rows: number[][];
  /** lm: `[row][token][vocabulary]`; scalar: `[row][token]` */
  readonly outputs: (number | number[])[][];
}

describe.each(["reference", "onnx"] as const)("models computed by transformers, on %s", (engineName) => {
  let engine: Engine;
  beforeAll(async () => void ({ engine } = await createEngine({ name: engineName })));
  afterAll(() => engine.dispose());

  it.each(FIXTURES)("%s: same outputs within 1e-4 at every position, whatever the padding", async (name) => {
    const { spec, values, warnings } = await loadModelDir(fixtureDir(name), fixtureHead(name));
    expect(warnings).toEqual([]);
    const { rows, outputs } = fixtureJson(name, "expected.json") as Expected;
    const layout = layoutOf(spec);
    const length = Math.max(...rows.map((row) => row.length)) + 3;
    const ids = new Int32Array(rows.length * length).fill(47);
    rows.forEach((row, b) => ids.set(row, b * length));

    const executable = await engine.compile({
      key: `fixture ${specKey(spec)}`,
      arenas: { model: { layout, access: "read" } },
      inputs: { ids: { shape: [rows.length, length], dtype: "int32" } },
      body: ({ model }, inputs) => ({
        outputs: {
          result:
            spec.head === "scalar"
              ? tokenValues(spec, model, inputs.ids)
              : tf.matMul(hiddenStates(spec, model, inputs.ids), headWeight(spec, model), false, true),
        },
      }),
    });
    const { result } = await executable.run({ model: engine.createArena(layout, values) }, { ids });

    const width = spec.head === "scalar" ? 1 : spec.vocabularySize;
    let largest = 0;
    rows.forEach((row, b) => {
      const expected = outputs[b].flat();
      expect(expected.length).toBe(row.length * width);
      expected.forEach((value, i) => {
        largest = Math.max(largest, Math.abs(result[b * length * width + i] - value));
      });
    });
    expect(largest).toBeLessThan(1e-4);
    expect(Math.max(...outputs.flat(2).map(Math.abs))).toBeGreaterThan(0.5); // the comparison is about something
  });
});
