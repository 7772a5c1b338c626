import * as ort from "onnxruntime-node";
import { GraphBuilder } from "../trace/graph.js";
import { modelProto } from "../trace/model-proto.js";

/**
 * Copies between host and device by running the identity with its output in the other place: the package's own
 * `tensor.getData()` aborts the process for WebGPU buffers.
 */
export class DeviceTransfer {
  readonly #sessions = new Map<string, Promise<ort.InferenceSession>>();

  constructor(private readonly provider: ort.InferenceSession.ExecutionProviderConfig) {}

  async upload(values: Float32Array, shape: readonly number[]): Promise<ort.Tensor> {
    const session = await this.#session("gpu-buffer", shape);
    const { y } = await session.run({ x: new ort.Tensor("float32", values, [...shape]) });
    return y as ort.Tensor;
  }

  async download(tensor: ort.Tensor, shape: readonly number[]): Promise<Float32Array> {
    const session = await this.#session("cpu", shape);
    const { y } = await session.run({ x: tensor });
    return y.data as Float32Array;
  }

  async dispose(): Promise<void> {
    for (const session of this.#sessions.values()) await (await session).release();
    this.#sessions.clear();
  }

  #session(to: "gpu-buffer" | "cpu", shape: readonly number[]): Promise<ort.InferenceSession> {
    const key = `${to} ${shape.join()}`;
    let session = this.#sessions.get(key);
    if (session === undefined) {
      const graph = new GraphBuilder();
      const info = (name: string) => ({ name, dtype: "float32" as const, dims: shape });
      graph.output(info("y"), graph.input(info("x")));
      session = ort.InferenceSession.create(modelProto(graph), {
        executionProviders: [this.provider],
        preferredOutputLocation: to,
        logSeverityLevel: 3,
      });
      this.#sessions.set(key, session);
    }
    return session;
  }
}
