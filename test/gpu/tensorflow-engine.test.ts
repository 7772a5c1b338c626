import * as tf from "@tensorflow/tfjs";
import { execFileSync } from "node:child_process";
import { pathToFileURL } from "node:url";
import { Worker } from "node:worker_threads";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createEngine } from "../../src/engine/create-engine.js";
import type { Engine, Program } from "../../src/engine/engine.js";
import { isTensorflowOnGpu } from "../../src/engine/tensorflow.js";
import { builtFile, packageRoot } from "../../src/shared/paths.js";
import { missing } from "./native-library.js";

describe("tensorflow", () => {
  if (missing !== null) {
    it.skip(`runs on its native library (skipped: ${missing})`, () => {});
    return;
  }
  let engine: Engine;
  beforeAll(async () => {
    ({ engine } = await createEngine({ name: "tensorflow", threads: 1 }));
  });
  afterAll(() => engine.dispose());

  it("names its library's version and device", () => {
    expect(engine.description).toMatch(
      /^tensorflow: tfjs-node-gpu 4\.22\.0, libtensorflow 2\.\d+\.\d+, (GPU|CPU, 1 threads)$/,
    );
  });

  it("leaves the backend of other tfjs code as it was", async () => {
    await tf.setBackend("cpu");
    await engine.compile(gatherRow).then((program) => program.run({}, { row: Int32Array.of(1) }));
    expect(tf.getBackend()).toBe("cpu");
  });

  it("gives way to onnx under auto, saying why, when it finds no GPU it can use", async () => {
    const facts = () => ({ hasCudaDevice: true, hasTensorflowLibrary: true });
    const created = await createEngine({ name: "auto", threads: 1 }, facts);
    expect(created.engine.name).toBe(isTensorflowOnGpu() ? "tensorflow" : "onnx");
    if (!isTensorflowOnGpu()) expect(created.reason).toContain("finds no GPU it can use");
    await created.engine.dispose();
  });

  it("names the program that a kernel failed in, and goes on", async () => {
    const executable = await engine.compile(gatherRow);
    // A GPU kernel cannot fail on a bad index: it returns zeros.
    if (!isTensorflowOnGpu()) {
      const before = tf.memory().numTensors;
      await expect(executable.run({}, { row: Int32Array.of(5) })).rejects.toMatchObject({
        code: "INTERNAL",
        message: expect.stringMatching(/program "gather a row" failed: .*index value 5 is not in/) as string,
      });
      expect(tf.memory().numTensors).toBe(before);
    }
    expect((await executable.run({}, { row: Int32Array.of(1) })).y).toEqual(Float32Array.of(3, 4));
  });

  it("computes in two worker threads at once, with the threads it was given", async () => {
    execFileSync(process.execPath, ["scripts/build.mjs"], { cwd: packageRoot });
    const url = (path: string) => JSON.stringify(pathToFileURL(builtFile(path)).href);
    const code = `
      const { parentPort } = require("node:worker_threads");
      (async () => {
        const { createEngine } = await import(${url("src/engine/create-engine")});
        const { makeLayout } = await import(${url("src/engine/layout")});
        const tf = await import("@tensorflow/tfjs");
        const { engine } = await createEngine({ name: "tensorflow", threads: 1 });
        const layout = makeLayout({ w: [64, 64] });
        const arena = engine.createArena(layout);
        const executable = await engine.compile({
          key: "count", arenas: { a: { layout, access: "update" } }, inputs: { x: { shape: [64], dtype: "float32" } },
          body: ({ a }, { x }) => ({ outputs: {}, updates: { a: { w: tf.add(a.w, x) } } }),
        });
        for (let i = 0; i < 200; i++) await executable.run({ a: arena }, { x: new Float32Array(64).fill(1) });
        const isRight = (await arena.read()).every((value) => value === 200);
        parentPort.postMessage({ description: engine.description, isRight });
      })();`;
    const run = () =>
      new Promise<{ description: string; isRight: boolean }>((resolve, reject) => {
        new Worker(code, { eval: true }).once("message", resolve).once("error", reject);
      });
    for (const { description, isRight } of await Promise.all([run(), run()])) {
      expect(description).toBe(engine.description);
      expect(isRight).toBe(true);
    }
  });
});

const gatherRow: Program = {
  key: "gather a row",
  arenas: {},
  inputs: { row: { shape: [1], dtype: "int32" } },
  body: (_arenas, { row }) => ({
    outputs: { y: tf.gather(tf.tensor2d([[1, 2], [3, 4]]), row as tf.Tensor1D) }, // prettier-ignore
  }),
};
