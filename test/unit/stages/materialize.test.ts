/** Steps that are done again after a restart, perhaps under other settings. */
import { expect, it } from "vitest";
import { configSchema } from "../../../src/config/schema.js";
import type { StageSetup } from "../../../src/coordinator/optimizer-steps.js";
import { freshGpt2Spec, toHfConfig } from "../../../src/models/model-spec.js";
import type { Experience } from "../../../src/rl/types.js";
import { PpoMinibatches } from "../../../src/stages/ppo-minibatches.js";
import type { PpoSchedule } from "../../../src/stages/ppo-schedule.js";
import type { ProximalPolicy } from "../../../src/stages/proximal-policy.js";
import type { RunContext } from "../../../src/stages/run-context.js";
import { runSupervisedStage, type SupervisedStage } from "../../../src/stages/supervised-loop.js";

const config = configSchema.parse({ data: { path: "rows.jsonl" }, cluster: { microShards: 8 } });

const spec = freshGpt2Spec({
  ...{ head: "lm", layers: 1, hidden: 8, heads: 1, contextTokens: 8, vocabularySize: 8 },
  ...{ eosTokenId: 0, padTokenId: 1 },
});

const experiences = Array.from({ length: 16 }, (_, i) => ({
  experienceId: `0/${i}/0`,
  promptIds: Int32Array.of(1, 2),
  responseIds: Int32Array.of(3),
  actionMask: Uint8Array.of(1),
})) as unknown as Experience[];

it("a PPO minibatch is cut into the micro-shards of its manifest, all of its rows", async () => {
  const run = { config, data: { sft: { train: [] } } } as unknown as RunContext;
  const schedule = { learningRates: () => ({}) } as unknown as PpoSchedule;
  const minibatches = new PpoMinibatches(run, schedule, {} as ProximalPolicy);
  minibatches.normalizeScores(null);
  minibatches.keep(0, experiences);
  const ids = experiences.map(({ experienceId }) => experienceId);
  for (const shardCount of [2, 16]) {
    const inputs = await minibatches.materialize(ids, { iteration: 0, klCoef: 0 }, 1, shardCount);
    expect(inputs.shards).toHaveLength(shardCount);
    expect(inputs.experienceIds!.flat().sort()).toEqual([...ids].sort());
  }
  // A round's manifest tells the most of its minibatches: one with few rows has fewer.
  expect(
    (await minibatches.materialize(ids.slice(0, 3), { iteration: 0, klCoef: 0 }, 1, 8)).shards,
  ).toHaveLength(2);
});

it("a supervised minibatch is cut into the micro-shards of its manifest, all of its rows", async () => {
  let setup: StageSetup | undefined;
  const learners = {
    minibatchesPerStep: 1,
    startStage: (opened: StageSetup) => {
      setup = opened;
      throw new Error("enough");
    },
  };
  const rows = Array.from({ length: 16 }, (_, i) => i);
  const stage = {
    ...{ stage: "sft", rows, heldOut: [], epochs: 1, batchSize: 16, optimizer: config.sft.optimizer },
    ...{
      model: { hfConfigJson: JSON.stringify(toHfConfig(spec)) },
      head: "lm",
      lengthOf: () => 1,
      wrap: (part: readonly number[]) => ({
        ...{ kind: "sft", part },
        rows: part.map(() => ({ ids: Int32Array.of(1), lossMask: Uint8Array.of(0) })),
      }),
      denominatorOf: () => 1,
    },
  } as unknown as SupervisedStage<number>;
  await expect(runSupervisedStage({ config, learners } as unknown as RunContext, stage)).rejects.toThrow(
    "enough",
  );
  const { shards } = await setup!.materialize([], null, 1, 4);
  expect(shards).toHaveLength(4);
  const parts = shards.map((shard) => (shard.rows as unknown as { part: number[] }).part);
  expect(parts.flat().sort((a, b) => a - b)).toEqual(rows);
});
