import { isMainThread } from "node:worker_threads";
import type { HostArray } from "../engine.js";
import { ONNX_TYPE_CODE, type Graph, type ValueInfo } from "../trace/graph.js";
import { OrtCApi, type Pointer, type SessionConstant } from "./c-api.js";
import type { BoundRun, HostMemory, Runner, RunnerOptions, Session } from "./runner.js";

/** A run shorter than this holds up its caller less than handing it to another thread would hold up the run. */
const SHORT_MS = 5;

let api: OrtCApi | null = null;

/**
 * The C API: values are bound once, inputs and outputs are used where they are, and an output may overwrite an
 * input. On the main thread, or when asked to, a run leaves the event loop free.
 */
export class CRunner implements Runner {
  readonly description: string;
  readonly writesInPlace = true;
  readonly freezes = true;
  /** What sessions make of shared constants. */
  #packed: Pointer | null = null;

  /** @throws when the library cannot be used this way here */
  constructor(private readonly options: RunnerOptions) {
    api ??= new OrtCApi();
    this.description = `ONNX Runtime ${api.version} (C API), cpu, ${options.threads} threads`;
  }

  async load(model: Uint8Array, graph: Graph, frozen: readonly HostMemory[] = []): Promise<Session> {
    const constants = (graph.frozen ?? []).map(({ name, dims, dtype, isShared = false }, i) => ({
      name,
      isShared,
      value: api!.createTensor(frozen[i], dims, ONNX_TYPE_CODE[dtype]),
      memory: frozen[i],
    }));
    const isPackedForItself = constants.some(({ isShared }) => !isShared);
    if (constants.some(({ isShared }) => isShared)) this.#packed ??= api!.createPackedContainer();
    const session = api!.createSession(model, {
      threads: this.options.threads,
      constants,
      packed: this.#packed,
      // The session of decoding: packs its weights for every version, and is run so often that its memory is never idle.
      ownsMemory: isPackedForItself,
    });
    const { leavesCaller = false } = this.options;
    return new CSession(api!, session, graph, constants, leavesCaller || isMainThread);
  }

  async dispose(): Promise<void> {
    if (this.#packed !== null) api!.releasePackedContainer(this.#packed);
    this.#packed = null;
  }
}

class CSession implements Session {
  readonly #inputNames: string[];
  readonly #outputNames: string[];
  /** All runs of a session take about as long. */
  #lastMs = Infinity;

  constructor(
    private readonly api: OrtCApi,
    private readonly session: Pointer,
    private readonly graph: Graph,
    /** The session reads these where they are. */
    private readonly constants: readonly SessionConstant[],
    private readonly leavesCaller: boolean,
  ) {
    this.#inputNames = graph.inputs.map(({ name }) => name);
    this.#outputNames = graph.outputs.map(({ name }) => name);
  }

  bind(inputs: readonly HostMemory[], outputs: readonly HostArray[]): BoundRun {
    const tensor = ({ dims, dtype }: ValueInfo, memory: HostMemory) =>
      this.api.createTensor(memory, dims, ONNX_TYPE_CODE[dtype]);
    const call = {
      session: this.session,
      inputNames: this.#inputNames,
      inputs: this.graph.inputs.map((info, i) => tensor(info, inputs[i])),
      outputNames: this.#outputNames,
      outputs: this.graph.outputs.map((info, i) => tensor(info, outputs[i])),
    };
    const kept = [inputs, outputs]; // native code holds these addresses
    return {
      run: async () => {
        const started = performance.now();
        if (this.leavesCaller && this.#lastMs > SHORT_MS) await this.api.run(call);
        else this.api.runSync(call);
        this.#lastMs = performance.now() - started;
      },
      dispose: () => {
        for (const value of [...call.inputs, ...call.outputs]) this.api.releaseTensor(value);
        kept.length = 0;
      },
    };
  }

  async dispose(): Promise<void> {
    this.api.releaseSession(this.session);
    for (const { value } of this.constants) this.api.releaseTensor(value);
  }
}
