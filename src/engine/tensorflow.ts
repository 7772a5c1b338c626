import * as tf from "@tensorflow/tfjs";
import { configError, describeError } from "../shared/errors.js";
import { tensorflowLibraryPath } from "./choice.js";
import { EagerEngine } from "./eager/eager-engine.js";
import type { Engine, EngineOptions } from "./engine.js";

/** What we read of tfjs-node's backend beside the tfjs interface. */
interface NodeBackend {
  readonly isUsingGpuDevice?: boolean;
}

/**
 * Programs run eagerly on libtensorflow through @tensorflow/tfjs-node-gpu; arenas stay on its device.
 * Picks the GPU by CUDA_VISIBLE_DEVICES. `deviceId` and `threads` set the library's environment where it is unset;
 * inside a worker thread that has no effect (its environment is a copy), so whoever starts the process sets it.
 *
 * @throws {TroupeError} CONFIG when the native library is missing or does not load
 */
export async function createTensorflowEngine(options: EngineOptions = {}): Promise<Engine> {
  if (tensorflowLibraryPath() === null) {
    throw configError(
      "engine tensorflow: the native library of @tensorflow/tfjs-node-gpu is not installed; " +
        "run `npm run setup:gpu`, or choose `engine.name: onnx`",
    );
  }
  if (options.deviceId !== undefined) process.env.CUDA_VISIBLE_DEVICES ??= String(options.deviceId);
  if (options.threads !== undefined) process.env.TF_NUM_INTRAOP_THREADS ??= String(options.threads);
  process.env.TF_FORCE_GPU_ALLOW_GROWTH ??= "true"; // by default the first process takes the whole GPU
  process.env.TF_CPP_MIN_LOG_LEVEL ??= "2";
  const previous = tf.engine().backendName;
  try {
    await import("@tensorflow/tfjs-node-gpu"); // registers the backend "tensorflow"
  } catch (cause) {
    throw configError(
      `engine tensorflow: the native library does not load (${describeError(cause)}); ` +
        "it needs CUDA 11.2-11.8 and cuDNN 8; run `npm run setup:gpu` for the check list, or choose `engine.name: onnx`",
      { cause },
    );
  }
  const backend = tf.findBackend("tensorflow") as NodeBackend | null;
  if (typeof previous === "string") await tf.setBackend(previous);
  const device = backend?.isUsingGpuDevice === true ? "GPU" : "CPU";
  return new EagerEngine({
    name: "tensorflow",
    backend: "tensorflow",
    arenas: "device",
    description: `tensorflow: tfjs-node-gpu ${tf.version["tfjs-core"]}, ${device}`,
  });
}
