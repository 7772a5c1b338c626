/** A rollout worker's generation: prompts in, sampled answers with their log-probabilities out. */
import { createEngine } from "../../engine/create-engine.js";
import { initParams, layoutOf } from "../../models/model-spec.js";
import { Generator, MAX_SLOTS } from "../../rollout/generator.js";
import { benchIds, benchSpec } from "./bench-model.js";
import type { ModelShape, Side } from "./side.js";

export interface DecodeConfig extends ModelShape {
  readonly threads: number;
  readonly batch: number;
  readonly promptTokens: number;
  readonly responseTokens: number;
}

export async function open(config: DecodeConfig): Promise<Side> {
  const { batch, promptTokens, responseTokens, vocabulary, threads } = config;
  const { engine } = await createEngine({ name: "onnx", threads });
  const spec = benchSpec(config, "lm");
  const params = engine.createArena(layoutOf(spec), initParams(spec, 1));
  const generator = new Generator({
    engine,
    spec,
    slots: Math.min(batch, MAX_SLOTS),
    maxSequenceTokens: promptTokens + responseTokens,
  });
  const prompts = Array.from({ length: batch }, (_, row) => ({
    key: `0/${row}/0`,
    promptIds: benchIds(promptTokens, vocabulary, row + 1),
  }));
  const sampling = {
    seed: 1,
    temperature: 1,
    topK: 0,
    topP: 1,
    minNewTokens: responseTokens,
    maxNewTokens: responseTokens,
    repetitionPenalty: 1,
    greedy: false,
  };
  return {
    repeat: async () => {
      const answers = await generator.generate(prompts, sampling, params);
      return answers.reduce((sum, { responseIds }) => sum + responseIds.length, 0);
    },
    close: async () => {
      generator.dispose();
      await engine.dispose();
    },
  };
}
