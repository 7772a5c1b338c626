import * as ort from "onnxruntime-node";
import { packageVersion } from "./package.js";
import type { HostArray } from "../engine.js";
import type { Graph, ValueInfo } from "../trace/graph.js";
import type { BoundRun, HostMemory, Runner, RunnerOptions, Session } from "./runner.js";

/** The public onnxruntime-node API: inputs are read in place, outputs are copied. Blocks its thread while running. */
export class NodeRunner implements Runner {
  readonly description: string;
  readonly writesInPlace = false;

  constructor(private readonly options: RunnerOptions) {
    this.description = `onnxruntime-node ${packageVersion()}, cpu, ${options.threads} threads`;
  }

  readonly freezes = false;

  async load(model: Uint8Array, graph: Graph): Promise<Session> {
    const session = await ort.InferenceSession.create(model, {
      executionProviders: ["cpu"],
      intraOpNumThreads: this.options.threads,
      interOpNumThreads: 1,
      logSeverityLevel: 3,
    });
    return new NodeSession(session, graph);
  }

  async dispose(): Promise<void> {}
}

class NodeSession implements Session {
  constructor(
    private readonly session: ort.InferenceSession,
    private readonly graph: Graph,
  ) {}

  bind(inputs: readonly HostMemory[], outputs: readonly HostArray[]): BoundRun {
    const feeds = Object.fromEntries(
      this.graph.inputs.map((info, i) => [info.name, tensorOver(info, inputs[i] as HostArray)]),
    );
    return {
      run: async () => {
        const results = await this.session.run(feeds);
        this.graph.outputs.forEach(({ name }, i) => outputs[i].set(results[name].data as HostArray));
      },
      dispose: () => {},
    };
  }

  dispose(): Promise<void> {
    return this.session.release();
  }
}

function tensorOver({ dtype, dims }: ValueInfo, values: HostArray): ort.Tensor {
  return new ort.Tensor(dtype as "float32" | "int32", values, [...dims]);
}
