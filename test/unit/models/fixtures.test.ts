import * as tf from "@tensorflow/tfjs";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Engine } from "../../../src/engine/engine.js";
import { createReferenceEngine } from "../../../src/engine/reference.js";
import { loadModelDir } from "../../../src/models/checkpoint-dir.js";
import { headWeight, hiddenStates, specKey } from "../../../src/models/forward.js";
import { tokenValues } from "./whole-sequences.js";
import { layoutOf } from "../../../src/models/model-spec.js";
import { packageRoot } from "../../../src/shared/paths.js";

const folder = join(packageRoot, "test/fixtures/models");

interface Expected {
  readonly rows: number[][];
  /** lm: `[row][token][vocabulary]`; scalar: `[row][token]` */
  readonly outputs: (number | number[])[][];
}

let engine: Engine;
beforeAll(() => {
  engine = createReferenceEngine();
});
afterAll(() => engine.dispose());

describe("models computed by transformers", () => {
  it.each(["gpt2", "gpt2-scalar", "opt-f16", "llama-sharded", "mistral", "qwen2-bf16", "qwen3"])(
    "%s: same outputs within 1e-4 at every position, whatever the padding",
    async (name) => {
      const dir = join(folder, name);
      const { spec, values, warnings } = await loadModelDir(dir, name.endsWith("scalar") ? "scalar" : "lm");
      expect(warnings).toEqual([]);
      const { rows, outputs } = JSON.parse(readFileSync(join(dir, "expected.json"), "utf8")) as Expected;
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
    },
  );
});
