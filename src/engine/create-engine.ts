import type { Engine, EngineName, EngineOptions } from "./engine.js";
import { describeError } from "../shared/errors.js";
import { chooseEngine, hostFacts, type EngineNeeds, type HostFacts } from "./choice.js";

export interface CreateEngineOptions extends EngineOptions {
  /** "auto": tensorflow when it computes on a CUDA device and nothing asks for onnx, else onnx. @default "auto" */
  readonly name?: EngineName | "auto";
  /** Programs will be compiled so: "auto" is then an engine that can. @default "none" */
  readonly recompute?: EngineNeeds["recompute"];
  /** Arenas will be asked for in this form: "auto" is then an engine that can. @default "f32" */
  readonly frozenWeights?: EngineNeeds["frozenWeights"];
}

export interface CreatedEngine {
  readonly engine: Engine;
  /** Why this engine was chosen; one line for the log. */
  readonly reason: string;
}

/**
 * Makes an engine. Only the library of the chosen one is loaded.
 *
 * @param facts what "auto" decides from
 * @throws {TroupeError} CONFIG when the engine asked for cannot run here
 */
export async function createEngine(
  options: CreateEngineOptions = {},
  facts: () => HostFacts = hostFacts,
): Promise<CreatedEngine> {
  const asked = options.name ?? "auto";
  if (asked !== "auto") return { engine: await load(asked, options), reason: "asked for by name" };
  const { name, reason } = chooseEngine(options, facts());
  if (name !== "tensorflow") return { engine: await load(name, options), reason };
  const obstacle = await obstacleToGpu(options);
  if (obstacle === null) return { engine: await load(name, options), reason };
  return {
    engine: await load("onnx", options),
    reason: `${reason}, but ${obstacle} (npm run setup:gpu lists what it needs)`,
  };
}

/** Why tensorflow would not compute on the GPU it sees, or null: a wrong CUDA version leaves it on the CPU, silently. */
async function obstacleToGpu(options: EngineOptions): Promise<string | null> {
  const { createTensorflowEngine, isTensorflowOnGpu } = await import("./tensorflow.js");
  try {
    await (await createTensorflowEngine(options)).dispose();
  } catch (error) {
    return describeError(error);
  }
  return isTensorflowOnGpu() ? null : "tensorflow's native library finds no GPU it can use";
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
