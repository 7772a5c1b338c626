/** The engines that the conformance suite compares with the reference. */
import type { Engine } from "../../../src/engine/engine.js";
import { createEngine } from "../../../src/engine/create-engine.js";
import { tensorflowLibraryPath } from "../../../src/engine/choice.js";
import { NodeRunner } from "../../../src/engine/onnx/node-runner.js";
import { OnnxEngine } from "../../../src/engine/onnx/onnx-engine.js";

export interface EngineUnderTest {
  readonly title: string;
  /** Why it cannot run here, or null. */
  readonly missing: string | null;
  readonly open: (threads: number) => Promise<Engine>;
}

const named = (name: "onnx" | "tensorflow" | "reference") => async (threads: number) =>
  (await createEngine({ name, threads })).engine;

export const openReference = named("reference");

export const enginesUnderTest: readonly EngineUnderTest[] = [
  { title: "onnx", missing: null, open: named("onnx") },
  {
    title: "onnx through onnxruntime-node",
    missing: null,
    open: async (threads) => new OnnxEngine(new NodeRunner({ threads })),
  },
  {
    title: "onnx on webgpu",
    // Starting a WebGPU device where there is none is slow and noisy, so it is asked for.
    missing:
      process.env.TROUPE_TEST_WEBGPU === "1" ? null : "set TROUPE_TEST_WEBGPU=1 on a machine with a GPU",
    open: async (threads) => (await createEngine({ name: "onnx", provider: "webgpu", threads })).engine,
  },
  {
    title: "tensorflow",
    missing:
      tensorflowLibraryPath() === null ? "its native library is not installed: npm run setup:gpu" : null,
    open: named("tensorflow"),
  },
];
