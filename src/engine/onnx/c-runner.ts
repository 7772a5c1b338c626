import { isMainThread } from "node:worker_threads";
import type { HostArray } from "../engine.js";
import { ONNX_TYPE_CODE, type Graph, type ValueInfo } from "../trace/graph.js";
import { OrtCApi, type Pointer, type SessionConstant } from "./c-api.js";
import type { BoundRun, HostMemory, Runner, RunnerOptions, Session } from "./runner.js";

/** A run shorter than this holds up the event loop less than handing it to another thread would hold up the run. */
const SHORT_MS = 5;

let api: OrtCApi | null = null;

/**
 * The C API: values are bound once, inputs and outputs are used where they are, and an output may overwrite an
 * input. On the main thread a run leaves the event loop free.
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
    if (constants.some(({ isShared }) => isShared)) this.#packed ??= api!.createPackedContainer();
    const session = api!.createSession(model, {
      threads: this.options.threads,
      constants,
      packed: this.#packed,
    });
    return new CSession(api!, session, graph, constants);
  }

  async dispose(): Promise<void> {
    if (this.#packed !== null) api!.releasePackedContainer(this.#packed);
    this.#packed = null;
  }
}

class CSession implements Session {
  readonly #inputNames: string[];
  readonly #outputNames: string[];

  constructor(
    private readonly api: OrtCApi,
    private readonly session: Pointer,
    private readonly graph: Graph,
    /** The session reads these where they are. */
    private readonly constants: readonly SessionConstant[],
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
    let lastMs = Infinity;
    const kept = [inputs, outputs]; // native code holds these addresses
    return {
      run: async () => {
        const started = performance.now();
        if (isMainThread && lastMs > SHORT_MS) await this.api.run(call);
        else this.api.runSync(call);
        lastMs = performance.now() - started;
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
