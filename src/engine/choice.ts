import { existsSync, readdirSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { configError } from "../shared/errors.js";
import type { EngineName, EngineOptions } from "./engine.js";
import { requireCudaProvider } from "./onnx/cuda-provider.js";

export interface EngineChoice {
  readonly name: EngineName;
  readonly reason: string;
}

/** What `auto` decides from. */
export interface HostFacts {
  readonly hasCudaDevice: boolean;
  readonly hasTensorflowLibrary: boolean;
}

/** The settings that decide what `auto` is, besides the host; those left out have their defaults. */
export type EngineNeeds = Partial<Omit<EngineRequest, "name">>;

/**
 * tensorflow where a CUDA device is visible, its native library is installed and no setting asks for what only onnx
 * does, else onnx.
 */
export function chooseEngine(settings: EngineNeeds = {}, facts: HostFacts = hostFacts()): EngineChoice {
  const setting = onnxSetting(settings);
  if (setting !== null) return { name: "onnx", reason: `auto: ${setting} is a setting of the onnx engine` };
  if (!facts.hasCudaDevice) return { name: "onnx", reason: "auto: no CUDA device is visible" };
  if (!facts.hasTensorflowLibrary) {
    const reason = "auto: a CUDA device is visible, but tensorflow's native library is not installed";
    return { name: "onnx", reason: `${reason} (npm run setup:gpu)` };
  }
  return { name: "tensorflow", reason: "auto: a CUDA device is visible" };
}

function onnxSetting({ provider, recompute, frozenWeights }: EngineNeeds): string | null {
  if (provider !== undefined && provider !== "cpu") return `engine.provider ${provider}`;
  if (recompute === "layers") return `engine.recompute ${recompute}`;
  if (frozenWeights === "int8") return `engine.frozenWeights ${frozenWeights}`;
  return null;
}

/** The settings of a config that say what computes. */
export interface EngineRequest {
  readonly name: EngineName | "auto";
  readonly provider: NonNullable<EngineOptions["provider"]>;
  readonly recompute: "none" | "layers";
  readonly frozenWeights: "f32" | "int8";
}

/** Which engine a config runs on here. */
export const engineOf = (request: EngineRequest, facts = hostFacts()): EngineName =>
  request.name === "auto" ? chooseEngine(request, facts).name : request.name;

/**
 * What files alone tell of an engine that cannot run here, before any process is started.
 * @throws {TroupeError} CONFIG when its native library is missing, naming it and how to get it
 */
export function requireEngineLibrary(request: EngineRequest, facts = hostFacts()): void {
  const { name, provider } = request;
  if (name === "tensorflow" && !facts.hasTensorflowLibrary)
    throw configError(
      "engine.name tensorflow needs the native library of @tensorflow/tfjs-node-gpu, which is not installed: " +
        "run `npm run setup:gpu`, or choose `engine.name: onnx`",
    );
  if (engineOf(request, facts) === "onnx" && provider === "cuda") requireCudaProvider();
}

export function hostFacts(): HostFacts {
  return { hasCudaDevice: hasCudaDevice(), hasTensorflowLibrary: tensorflowLibraryPath() !== null };
}

/** The native add-on of @tensorflow/tfjs-node-gpu, or null before `npm run setup:gpu`. */
export function tensorflowLibraryPath(): string | null {
  const require = createRequire(import.meta.url);
  let folder: string;
  try {
    folder = dirname(require.resolve("@tensorflow/tfjs-node-gpu/package.json"));
  } catch {
    return null; // not installed at all: an optional part of some installations
  }
  const library = join(folder, "lib");
  if (!existsSync(library)) return null;
  for (const abi of readdirSync(library)) {
    const path = join(library, abi, "tfjs_binding.node");
    if (existsSync(path)) return path;
  }
  return null;
}

/** An NVIDIA device node exists and CUDA_VISIBLE_DEVICES does not hide it. */
function hasCudaDevice(): boolean {
  const visible = process.env.CUDA_VISIBLE_DEVICES;
  if (visible !== undefined && (visible.trim() === "" || visible.trim().startsWith("-1"))) return false;
  // Linux containers show /dev/nvidia<n>; WSL shows /dev/dxg with the CUDA driver mounted beside it.
  if (existsSync("/dev/nvidiactl")) return readdirSync("/dev").some((name) => /^nvidia\d+$/.test(name));
  return existsSync("/usr/lib/wsl/lib/libcuda.so.1");
}
