/** What programs need while they run is one pool for all of them. */
import { afterAll, describe, expect, it } from "vitest";
import type { Engine } from "../../../src/engine/engine.js";
import { createOnnxEngine } from "../../../src/engine/onnx/onnx-engine.js";
import { makeLmGradProgram } from "../../../src/learner/programs.js";
import { freshGpt2Spec, initParams, layoutOf } from "../../../src/models/model-spec.js";

const spec = freshGpt2Spec({
  ...{ head: "lm", layers: 1, hidden: 64, heads: 4, contextTokens: 512, vocabularySize: 16_384 },
  ...{ eosTokenId: 0, padTokenId: 1 },
});
const layout = layoutOf(spec);
const engines: Engine[] = [];
afterAll(async () => {
  for (const engine of engines) await engine.dispose();
});

describe("sessions of the onnx engine", () => {
  it("take the memory of the largest run, not of each", { timeout: 120_000 }, async () => {
    const engine = await createOnnxEngine();
    engines.push(engine);
    const [params, grads] = [engine.createArena(layout, initParams(spec, 1)), engine.createArena(layout)];
    const run = async (tokens: number) => {
      const program = makeLmGradProgram(spec, { rows: 1, length: tokens, tokens }, 1).overwriting;
      const ids = new Int32Array(tokens);
      const at = Int32Array.from(ids, (_, i) => i);
      const mask = new Float32Array(tokens).fill(1);
      const denominator = Float32Array.of(tokens);
      const inputs = { ids, starts: ids, at, labels: ids, mask, denominator };
      await (await engine.compile(program)).run({ params, grads }, inputs);
      return process.memoryUsage().rss;
    };
    await run(16);
    const before = process.memoryUsage().rss;
    const largest = (await run(512)) - before; // logits of 33 MB, and what their gradient takes
    let all = 0;
    for (let tokens = 496; tokens >= 192; tokens -= 16) all = (await run(tokens)) - before;
    expect(largest).toBeGreaterThan(50 * 2 ** 20);
    // Twenty sessions of their own would take ten times as much; what each of these keeps is its graph.
    expect(all).toBeLessThan(2.2 * largest);
  });
});
