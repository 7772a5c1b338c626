import * as tf from "@tensorflow/tfjs";

/**
 * Runs synchronous tensor code on one tfjs backend and restores the previous one. tfjs has a single global
 * backend, and several engines may live in one process. Backends with a synchronous factory (all of ours) are
 * switched before `setBackend` returns its promise.
 */
export function withBackend<T>(backend: string, run: () => T): T {
  const previous = tf.engine().backendName;
  if (previous !== backend) void tf.setBackend(backend);
  try {
    return run();
  } finally {
    if (previous !== backend && typeof previous === "string") void tf.setBackend(previous);
  }
}
