import * as tf from "@tensorflow/tfjs";
import { afterAll, expect, it } from "vitest";
import type { Program } from "../../../src/engine/engine.js";
import { makeLayout } from "../../../src/engine/layout.js";
import { CRunner } from "../../../src/engine/onnx/c-runner.js";
import { OnnxEngine } from "../../../src/engine/onnx/onnx-engine.js";
import type { Runner } from "../../../src/engine/onnx/runner.js";

/** ONNX Runtime, and how many sessions were loaded. */
class CountingRunner extends CRunner {
  loads = 0;

  override load(...args: Parameters<Runner["load"]>): ReturnType<Runner["load"]> {
    this.loads += 1;
    return super.load(...args);
  }
}

const runner = new CountingRunner({ threads: 1 });
const engine = new OnnxEngine(runner);
afterAll(() => engine.dispose());

const layout = makeLayout({ w: [4, 4] });
const programWith = (access: "read" | "frozen"): Program => ({
  key: `product ${access}`,
  arenas: { a: { layout, access } },
  inputs: { x: { shape: [2, 4], dtype: "float32" } },
  body: ({ a }, { x }) => ({ outputs: { y: tf.matMul(x as tf.Tensor2D, a.w as tf.Tensor2D) } }),
});

it.each([
  ["read", [1, 0, 0]],
  ["frozen", [1, 0, 1]],
] as const)(
  "weights opened as %s load a session %j times: at first, again, under new weights",
  async (access, expected) => {
    const arena = engine.createArena(layout);
    const program = programWith(access);
    const inputs = { x: new Float32Array(8).fill(1) };
    const loadsOf = async (): Promise<number> => {
      const before = runner.loads;
      const executable = await engine.compile(program);
      await executable.run({ a: arena }, inputs);
      await executable.run({ a: arena }, inputs);
      return runner.loads - before;
    };
    const first = await loadsOf();
    const again = await loadsOf();
    await arena.write(new Float32Array(16).fill(2));
    expect([first, again, await loadsOf()]).toEqual(expected);
  },
);
