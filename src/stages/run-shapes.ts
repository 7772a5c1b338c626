/** The shapes of a stage's program runs (src/learner/run-shapes.ts), from its data and config. */
import type { Config } from "../config/schema.js";
import { groupsOf } from "../data/batches.js";
import { pairBudget, roundPairs, roundTokens } from "../learner/packed-rows.js";
import type { Packable, RunShape } from "../learner/packing.js";
import { choosingRunShapes, layCosts, packablesOf } from "../learner/run-shapes.js";
import { parseModelConfig, type Head } from "../models/model-spec.js";
import { streamOf, uniformAt } from "../shared/rng.js";
import { inSlices } from "../shared/steps.js";
import { cutMicroShards, shardCountOf } from "./micro-shards.js";
import type { PpoModels } from "./policy-versions.js";
import type { RunContext } from "./run-context.js";

/** Micro-shards that are looked at: of a stage's first epoch, or made up. */
export const SAMPLED_SHARDS = 128;
/** Sequences that are looked at, where micro-shards are large. */
const SAMPLED_SEQUENCES = 8192;

/**
 * @param model   the stage's
 * @param sample  what its micro-shards are like
 * @param longest tokens that a sequence may have
 */
export function shapesOfStage(
  { engine: { microBatchTokens } }: Pick<Config, "engine">,
  stage: "sft" | "reward" | "ppo",
  model: { readonly hfConfigJson: string; readonly head: Head },
  sample: readonly (readonly Packable[])[],
  longest: number,
): Promise<RunShape[]> {
  const spec = parseModelConfig(JSON.parse(model.hfConfigJson), model.head);
  const size = Math.max(1, ...sample.map(({ length }) => length));
  return inSlices(
    choosingRunShapes(everyFew(sample, SAMPLED_SEQUENCES / size), longest, {
      ...layCosts(spec),
      ...(stage === "reward"
        ? { budgetTokens: pairBudget(microBatchTokens), roundListed: roundPairs }
        : { budgetTokens: microBatchTokens, roundListed: roundTokens }),
    }),
  );
}

/**
 * Of ppo: its prompts are known, its answers are not. They may be of any length, and all long or all short: the shapes
 * suit minibatches of answers of up to 1/8, 2/8, … of generation.maxNewTokens, and of answers that are all cut off there.
 */
export function ppoShapes(
  { config, data }: Pick<RunContext, "config" | "data">,
  { policy }: Pick<PpoModels, "policy">,
): Promise<RunShape[]> {
  const { ppo, generation, cluster, seed } = config;
  const prompts = data.ppo.train.map(({ promptIds }) => promptIds.length);
  const longest = prompts.reduce((most, length) => Math.max(most, length), 1) + generation.maxNewTokens;
  const shardCount = shardCountOf(ppo.minibatchSize, cluster.microShards);
  const stream = streamOf("run shapes");
  let drawn = 0;
  const uniform = () => uniformAt(seed, stream, drawn++);
  const minibatch = (answer: () => number): Packable[][] => {
    const rows = Array.from({ length: ppo.minibatchSize }, (): Packable => {
      const listed = Math.ceil(generation.maxNewTokens * answer());
      return { length: prompts[Math.floor(uniform() * prompts.length)] + listed, listed };
    });
    return cutMicroShards(rows, shardCount, ({ length }) => length);
  };
  const lengths = [1, 2, 3, 4, 5, 6, 7, 8].map((eighths) => () => (eighths / 8) * (1 - uniform()));
  const sample = [...lengths, () => 1].flatMap((answer) =>
    Array.from({ length: Math.ceil(SAMPLED_SHARDS / (shardCount * 9)) }, () => minibatch(answer)).flat(),
  );
  const ptx = config.ppo.ptx === null ? [] : data.sft.train.slice(0, ppo.minibatchSize * 4);
  const ptxSample = groupsOf(ptx, ppo.minibatchSize).flatMap((rows) =>
    cutMicroShards(rows, Math.min(shardCount, rows.length), ({ ids }) => ids.length).map((part) =>
      packablesOf({ kind: "sft", rows: part }),
    ),
  );
  const longestPtx = ptx.length === 0 ? 0 : Math.max(...data.sft.train.map(({ ids }) => ids.length));
  const model = { ...policy, head: "lm" as const };
  return shapesOfStage(config, "ppo", model, [...sample, ...ptxSample], Math.max(longest, longestPtx));
}

/** At most `count` of them, from all over. */
function everyFew<T>(values: readonly T[], count: number): T[] {
  const step = Math.max(1, Math.ceil(values.length / Math.max(1, count)));
  return values.filter((_, i) => i % step === 0);
}
