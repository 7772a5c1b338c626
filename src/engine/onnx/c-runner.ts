import { isMainThread } from "node:worker_threads";
import type { HostArray } from "../engine.js";
import { ONNX_TYPE_CODE, type Graph, type ValueInfo } from "../trace/graph.js";
import { OrtCApi, type Pointer } from "./c-api.js";
import type { BoundRun, Runner, RunnerOptions, Session } from "./runner.js";

let api: OrtCApi | null = null;

/**
 * The C API: values are bound once, inputs and outputs are used where they are, and an output may overwrite an
 * input. On the main thread a run leaves the event loop free.
 */
export class CRunner implements Runner {
  readonly description: string;
  readonly writesInPlace = true;

  /** @throws when the library cannot be used this way here */
  constructor(private readonly options: RunnerOptions) {
    api ??= new OrtCApi();
    this.description = `ONNX Runtime ${api.version} (C API), cpu, ${options.threads} threads`;
  }

  async load(model: Uint8Array, graph: Graph): Promise<Session> {
    return new CSession(api!, api!.createSession(model, this.options.threads), graph);
  }

  async dispose(): Promise<void> {}
}

class CSession implements Session {
  readonly #inputNames: string[];
  readonly #outputNames: string[];

  constructor(
    private readonly api: OrtCApi,
    private readonly session: Pointer,
    private readonly graph: Graph,
  ) {
    this.#inputNames = graph.inputs.map(({ name }) => name);
    this.#outputNames = graph.outputs.map(({ name }) => name);
  }

  bind(inputs: readonly HostArray[], outputs: readonly HostArray[]): BoundRun {
    const tensor = ({ dims, dtype }: ValueInfo, memory: HostArray) =>
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
        if (isMainThread) await this.api.run(call);
        else this.api.runSync(call);
      },
      dispose: () => {
        for (const value of [...call.inputs, ...call.outputs]) this.api.releaseTensor(value);
        kept.length = 0;
      },
    };
  }

  async dispose(): Promise<void> {
    this.api.releaseSession(this.session);
  }
}
