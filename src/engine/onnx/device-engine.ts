/**
 * The onnx engine on a GPU provider, through onnxruntime-node. Arenas stay on the device from run to run: every
 * update is a new device tensor that takes the place of the old one.
 */
import * as ort from "onnxruntime-node";
import { configError, describeError, shapeError } from "../../shared/errors.js";
import { checkArenas, checkInputs } from "../binding.js";
import type { Arena, Engine, Executable, HostArray, HostArrays, Program } from "../engine.js";
import { checkArenaLength } from "../host-arena.js";
import { sizeOf, type Layout } from "../layout.js";
import { modelProto } from "../trace/model-proto.js";
import { traceProgram, type TracedProgram } from "../trace/trace-program.js";
import { requireCudaProvider } from "./cuda-provider.js";
import { DeviceTransfer } from "./device-transfer.js";
import { packageVersion } from "./package.js";

export type DeviceProvider = "webgpu" | "cuda";

/** An arena of device tensors; `read` and `write` copy. */
class DeviceArena implements Arena {
  readonly tensors = new Map<string, ort.Tensor>();
  /** Host values not yet sent: uploading is asynchronous and `createArena` is not. */
  #pending: Float32Array | null;

  constructor(
    readonly layout: Layout,
    private readonly transfer: DeviceTransfer,
    values?: Float32Array,
  ) {
    if (values !== undefined) checkArenaLength(layout, values);
    this.#pending = values?.slice() ?? new Float32Array(layout.size);
  }

  /** Sends values written on the host to the device. Called before every run. */
  async flush(): Promise<void> {
    const values = this.#pending;
    if (values === null) return;
    this.#pending = null;
    for (const { name, shape, offset, size } of this.layout.entries) {
      this.replace(name, await this.transfer.upload(values.slice(offset, offset + size), shape));
    }
  }

  async read(): Promise<Float32Array> {
    if (this.#pending !== null) return this.#pending.slice();
    const values = new Float32Array(this.layout.size);
    for (const { name, shape, offset } of this.layout.entries) {
      values.set(await this.transfer.download(this.tensors.get(name)!, shape), offset);
    }
    return values;
  }

  async write(values: Float32Array): Promise<void> {
    checkArenaLength(this.layout, values);
    this.#pending = values.slice();
  }

  async clear(): Promise<void> {
    this.#pending = new Float32Array(this.layout.size);
  }

  replace(name: string, tensor: ort.Tensor): void {
    this.tensors.get(name)?.dispose();
    this.tensors.set(name, tensor);
  }

  dispose(): void {
    for (const tensor of this.tensors.values()) tensor.dispose();
    this.tensors.clear();
  }
}

export class DeviceOnnxEngine implements Engine {
  readonly name = "onnx";
  readonly description: string;
  readonly #executables = new Map<string, Promise<Executable>>();
  readonly #sessions: ort.InferenceSession[] = [];
  readonly #transfer: DeviceTransfer;
  #last: Promise<unknown> = Promise.resolve();

  constructor(
    private readonly provider: ort.InferenceSession.ExecutionProviderConfig & { name: DeviceProvider },
  ) {
    this.description = `onnx: onnxruntime-node ${packageVersion()}, ${provider.name}`;
    this.#transfer = new DeviceTransfer(provider);
  }

  createArena(layout: Layout, values?: Float32Array): Arena {
    return new DeviceArena(layout, this.#transfer, values);
  }

  compile(program: Program): Promise<Executable> {
    let executable = this.#executables.get(program.key);
    if (executable === undefined) {
      executable = this.#compile(program);
      this.#executables.set(program.key, executable);
      executable.catch(() => this.#executables.delete(program.key)); // a failed compile may be tried again
    }
    return executable;
  }

  async dispose(): Promise<void> {
    await this.#last;
    this.#executables.clear();
    for (const session of this.#sessions.splice(0)) await session.release();
    await this.#transfer.dispose();
  }

  async #compile(program: Program): Promise<Executable> {
    const traced = traceProgram(program, this.provider.name);
    const locations = traced.outputs.map(
      ({ kind, info }) => [info.name, kind === "update" ? "gpu-buffer" : "cpu"] as const,
    );
    const session = await ort.InferenceSession.create(modelProto(traced.graph), {
      executionProviders: [this.provider],
      preferredOutputLocation: Object.fromEntries(locations),
      logSeverityLevel: 3,
    });
    this.#sessions.push(session);
    return {
      run: async (arenas, inputs) => {
        checkArenas(program, arenas);
        checkInputs(program, inputs);
        const next = this.#last.then(() => runOnce(traced, session, deviceArenas(program, arenas), inputs));
        this.#last = next.catch(() => {}); // its caller sees the error; the next run does not
        return next;
      },
    };
  }
}

async function runOnce(
  traced: TracedProgram,
  session: ort.InferenceSession,
  arenas: Readonly<Record<string, DeviceArena>>,
  inputs: HostArrays,
): Promise<HostArrays> {
  for (const arena of Object.values(arenas)) await arena.flush();
  const feeds = traced.inputs.map((input) => {
    const { name, dims, dtype } = input.info;
    const tensor =
      input.kind === "arena"
        ? arenas[input.alias].tensors.get(input.tensorName)!
        : new ort.Tensor(dtype as "float32" | "int32", inputs[input.name], [...dims]);
    return [name, tensor] as const;
  });
  const results = await session.run(Object.fromEntries(feeds));
  const outputs: Record<string, HostArray> = {};
  for (const output of traced.outputs) {
    const tensor = results[output.info.name] as ort.Tensor;
    if (output.kind === "update") arenas[output.alias].replace(output.tensorName, tensor);
    else outputs[output.name] = (tensor.data as HostArray).slice();
  }
  return outputs;
}

function deviceArenas(
  program: Program,
  arenas: Readonly<Record<string, Arena>>,
): Record<string, DeviceArena> {
  const entries = Object.keys(program.arenas).map((alias) => {
    const arena = arenas[alias];
    if (!(arena instanceof DeviceArena))
      throw shapeError(`the arena given for "${alias}" belongs to another engine`);
    return [alias, arena] as const;
  });
  return Object.fromEntries(entries);
}

/** @throws {TroupeError} CONFIG when the provider or its device is not available */
export async function createDeviceEngine(provider: DeviceProvider): Promise<Engine> {
  if (provider === "cuda") requireCudaProvider();
  // The first GPU that CUDA_VISIBLE_DEVICES shows; with WebGPU the driver's choice (Vulkan has its own variables).
  const engine = new DeviceOnnxEngine({ name: provider });
  try {
    await probeDevice(engine);
  } catch (cause) {
    // Its first line, without the place in ONNX Runtime's source and the condition that did not hold there.
    const reason = describeError(cause)
      .split("\n")[0]
      .replace(/^\S+\.cc:\d+ .* was false\. /, "");
    const needed = {
      webgpu: "it needs a Vulkan, Metal or Direct3D 12 driver that shows a GPU",
      cuda: "it needs an NVIDIA driver, CUDA 12 and cuDNN 9",
    }[provider];
    throw configError(
      `engine.provider ${provider} does not work here (${reason}): ${needed}; else choose \`engine.provider: cpu\``,
    );
  }
  return engine;
}

async function probeDevice(engine: DeviceOnnxEngine): Promise<void> {
  const values = Float32Array.of(1, 2, 3);
  const shape = [values.length];
  const layout: Layout = {
    entries: [{ name: "x", shape, offset: 0, size: sizeOf(shape) }],
    size: values.length,
    byName: new Map(),
  };
  const arena = engine.createArena(layout, values) as DeviceArena;
  await arena.flush();
  await arena.read();
  arena.dispose();
}
