import * as tf from "@tensorflow/tfjs";
import { configError, describeError } from "../shared/errors.js";
import { tensorflowLibraryPath } from "./choice.js";
import { EagerEngine } from "./eager/eager-engine.js";
import { setNativeDefaults } from "./eager/native-environment.js";
import type { Engine, EngineOptions } from "./engine.js";

/** What we read of tfjs-node's backend beside the tfjs interface. */
interface NodeBackend {
  readonly isUsingGpuDevice?: boolean;
  readonly binding?: { readonly TF_Version?: string };
}

/**
 * Programs run eagerly on libtensorflow through @tensorflow/tfjs-node-gpu; arenas stay on its device.
 *
 * libtensorflow reads these environment variables when it loads; each is set unless it is set already:
 *
 *   TF_NUM_INTRAOP_THREADS        `threads`, when given
 *   TF_FORCE_GPU_ALLOW_GROWTH     "true": take GPU memory as it is needed, not all of it at the start
 *   NVIDIA_TF32_OVERRIDE          "0": float32 products with 24-bit mantissas, as on the CPU; "1" allows TF32's 11
 *   TF_CPP_MIN_LOG_LEVEL          "2": no start-up notices
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
  setNativeDefaults(nativeSettings(options));
  const backend = await loadBackend();
  const version = backend.binding?.TF_Version ?? "of unknown version";
  const threads = process.env.TF_NUM_INTRAOP_THREADS;
  const device = hasGpu(backend) ? "GPU" : `CPU${threads === undefined ? "" : `, ${threads} threads`}`;
  return new EagerEngine({
    name: "tensorflow",
    backend: "tensorflow",
    arenas: "device",
    description: `tensorflow: tfjs-node-gpu ${tf.version["tfjs-core"]}, libtensorflow ${version}, ${device}`,
  });
}

/** Whether the loaded libtensorflow computes on a GPU; without CUDA's libraries it falls back to the CPU. */
export function isTensorflowOnGpu(): boolean {
  const backend = tf.engine().registryFactory.tensorflow === undefined ? null : tf.findBackend("tensorflow");
  return backend !== null && hasGpu(backend as NodeBackend);
}

const hasGpu = (backend: NodeBackend): boolean => backend.isUsingGpuDevice === true;

function nativeSettings({ threads }: EngineOptions): Record<string, string> {
  return {
    ...(threads === undefined ? {} : { TF_NUM_INTRAOP_THREADS: String(threads) }),
    TF_FORCE_GPU_ALLOW_GROWTH: "true",
    NVIDIA_TF32_OVERRIDE: "0",
    TF_CPP_MIN_LOG_LEVEL: "2",
  };
}

/** Loads the library once per thread and leaves tfjs' current backend as it was. */
async function loadBackend(): Promise<NodeBackend> {
  const previous = tf.engine().backendName;
  try {
    await import("@tensorflow/tfjs-node-gpu"); // registers the backend "tensorflow"
  } catch (cause) {
    throw configError(
      `engine tensorflow: the native library does not load (${describeError(cause)}); ` +
        "run `npm run setup:gpu` for the check list, or choose `engine.name: onnx`",
      { cause },
    );
  }
  if (typeof previous === "string") await tf.setBackend(previous);
  return tf.findBackend("tensorflow") as NodeBackend;
}
