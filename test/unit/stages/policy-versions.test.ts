import { expect, it } from "vitest";
import { configSchema } from "../../../src/config/schema.js";
import { PolicyVersions } from "../../../src/stages/policy-versions.js";
import type { RunContext } from "../../../src/stages/run-context.js";

const config = configSchema.parse({ data: { path: "x.jsonl" } });

it.each([
  [{ model_type: "gpt2", vocab_size: 264 }, 264],
  [{ model_type: "gpt2" }, 50_257],
  [{ model_type: "opt" }, 50_272],
])("takes ids of answers for what the policy's config %j means", (hfConfig, vocabularySize) => {
  const source = { hfConfigJson: JSON.stringify(hfConfig), parameters: null, initSeed: 1, directory: null };
  const run = { config } as unknown as RunContext;
  expect(new PolicyVersions(run, { policy: source, reward: source }).vocabularySize).toBe(vocabularySize);
});
