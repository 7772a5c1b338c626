import type { Engine, EngineName, EngineOptions } from "./engine.js";
import { chooseEngine } from "./choice.js";

export interface CreateEngineOptions extends EngineOptions {
  /** "auto": tensorflow with a visible CUDA device and its native library, else onnx. @default "auto" */
  readonly name?: EngineName | "auto";
}

export interface CreatedEngine {
  readonly engine: Engine;
  /** Why this engine was chosen; one line for the log. */
  readonly reason: string;
}

/**
 * Makes an engine. Only the library of the chosen one is loaded.
 *
 * @throws {TroupeError} CONFIG when the engine asked for cannot run here
 */
export async function createEngine(options: CreateEngineOptions = {}): Promise<CreatedEngine> {
  const asked = options.name ?? "auto";
  const { name, reason } = asked === "auto" ? chooseEngine() : { name: asked, reason: "asked for by name" };
  return { engine: await load(name, options), reason };
}

async function load(name: EngineName, options: EngineOptions): Promise<Engine> {
  switch (name) {
    case "onnx":
      return (await import("./onnx/onnx-engine.js")).createOnnxEngine(options);
    case "tensorflow":
      return (await import("./tensorflow.js")).createTensorflowEngine(options);
    case "reference":
      return (await import("./reference.js")).createReferenceEngine();
  }
}
