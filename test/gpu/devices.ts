/** The engines that compute somewhere else than onnx on the CPU, and why one cannot be tested here. */
import type { CreateEngineOptions } from "../../src/engine/create-engine.js";
import { requireCudaProvider } from "../../src/engine/onnx/cuda-provider.js";
import { describeError } from "../../src/shared/errors.js";
import { missing as tensorflowIsMissing } from "./native-library.js";

export interface Device {
  readonly title: string;
  readonly engine: CreateEngineOptions;
  /** Of the config, for a whole run. */
  readonly settings: readonly string[];
  /** Why it cannot run here, or null. */
  readonly missing: string | null;
}

function whatCudaMisses(): string | null {
  if (process.env.TROUPE_TEST_CUDA !== "1") return "set TROUPE_TEST_CUDA=1 on a machine with a CUDA device";
  try {
    requireCudaProvider();
    return null;
  } catch (error) {
    return describeError(error);
  }
}

export const devices: readonly Device[] = [
  {
    title: "tensorflow",
    engine: { name: "tensorflow", threads: 1 },
    settings: ["engine.name=tensorflow"],
    missing: tensorflowIsMissing,
  },
  {
    title: "onnx on webgpu",
    engine: { name: "onnx", provider: "webgpu", threads: 1 },
    settings: ["engine.name=onnx", "engine.provider=webgpu"],
    missing:
      process.env.TROUPE_TEST_WEBGPU === "1"
        ? null
        : "set TROUPE_TEST_WEBGPU=1 where there is a GPU (docs/gpu.md)",
  },
  {
    title: "onnx on cuda",
    engine: { name: "onnx", provider: "cuda", threads: 1 },
    settings: ["engine.name=onnx", "engine.provider=cuda"],
    missing: whatCudaMisses(),
  },
];
