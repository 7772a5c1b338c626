import { TroupeError } from "../../shared/errors.js";
import { GraphBuilder } from "../trace/graph.js";
import { modelProto } from "../trace/model-proto.js";
import type { Runner } from "./runner.js";

/**
 * Runs y ← y + x in place and checks the sum: proof that the library, the positions in its function table and the
 * memory binding are what we think they are.
 *
 * @throws when the result is wrong or the runner fails
 */
export async function probe(runner: Runner): Promise<void> {
  const graph = new GraphBuilder();
  const info = (name: string) => ({ name, dtype: "float32" as const, dims: [2, 3] });
  const sum = graph.op("Add", [graph.input(info("y")), graph.input(info("x"))]);
  graph.output(info("sum"), sum);
  const session = await runner.load(modelProto(graph), graph);
  const y = new Float32Array(new ArrayBuffer(24)).fill(2);
  const x = new Float32Array(new ArrayBuffer(24)).map((_, i) => i);
  const bound = session.bind([y, x], [y]);
  try {
    await bound.run();
    if (!y.every((value, i) => value === 2 + i)) {
      throw new TroupeError("INTERNAL", `ONNX Runtime computed ${y.join(", ")} for 2 + (0..5)`);
    }
  } finally {
    bound.dispose();
    await session.dispose();
  }
}
