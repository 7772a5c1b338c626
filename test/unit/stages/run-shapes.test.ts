import { describe, expect, it } from "vitest";
import { configSchema } from "../../../src/config/schema.js";
import { packRuns } from "../../../src/learner/packing.js";
import { roundTokens } from "../../../src/learner/packed-rows.js";
import { layCosts, MAX_SHAPES } from "../../../src/learner/run-shapes.js";
import { freshGpt2Spec, toHfConfig } from "../../../src/models/model-spec.js";
import { cutMicroShards } from "../../../src/stages/micro-shards.js";
import { ppoShapes } from "../../../src/stages/run-shapes.js";
import type { RunContext } from "../../../src/stages/run-context.js";

const spec = freshGpt2Spec({
  ...{ head: "lm", layers: 4, hidden: 256, heads: 4, contextTokens: 256, vocabularySize: 4096 },
  ...{ eosTokenId: 0, padTokenId: 1 },
});
const policy = {
  hfConfigJson: JSON.stringify(toHfConfig(spec)),
  parameters: null,
  initSeed: 1,
  directory: "models/policy",
};

/** Prompts of 16 to 96 tokens, answers of up to 96. */
function run(ppo: Record<string, unknown> = {}): Pick<RunContext, "config" | "data"> {
  const config = configSchema.parse({
    data: { path: "x.jsonl" },
    generation: { maxNewTokens: 96 },
    ppo: { minibatchSize: 32, ...ppo },
  });
  const prompts = Array.from({ length: 81 }, (_, i) => ({
    ...{ promptIndex: i, promptText: "" },
    promptIds: new Int32Array(16 + i),
  }));
  const ids = new Int32Array(240);
  const sft = [{ ids, lossMask: new Uint8Array(240).fill(1) }];
  const data = { ppo: { train: prompts, eval: [] }, sft: { train: sft, eval: [] } };
  return { config, data: data as unknown as RunContext["data"] };
}

describe("the shapes of ppo's runs", () => {
  it("suit short answers, long ones and both, before any is known", async () => {
    const shapes = await ppoShapes(run(), { policy });
    expect(shapes.length).toBeLessThanOrEqual(MAX_SHAPES);
    const options = { ...layCosts(spec), budgetTokens: 1024, roundListed: roundTokens };
    for (const answer of [(i: number) => 4 + (i % 8), (i: number) => 3 * i, () => 96]) {
      const rows = Array.from({ length: 32 }, (_, i) => {
        const listed = Math.max(1, answer(i));
        return { length: 16 + ((37 * i) % 81) + listed, listed };
      });
      let [real, laid] = [0, 0];
      for (const shard of cutMicroShards(rows, 8, ({ length }) => length)) {
        const runs = packRuns(shard, { ...options, shapes });
        for (const { rows: of, length, listed } of runs) {
          expect(shapes).toContainEqual({ rows: of, length, listed });
          laid += of * length;
        }
        real += shard.reduce((sum, { length }) => sum + length, 0);
      }
      expect(laid / real).toBeLessThan(1.25);
    }
  });

  it("are the same whenever they are chosen, and hold the rows of the ptx term", async () => {
    const shapes = await ppoShapes(run({ ptx: { coef: 1 } }), { policy });
    expect(await ppoShapes(run({ ptx: { coef: 1 } }), { policy })).toEqual(shapes);
    expect(shapes.some(({ length, listed }) => length >= 240 && listed >= 240)).toBe(true);
  });
});
