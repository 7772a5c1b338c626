/** A stage of a tiny model for real learners under a real coordinator. */
import type { StageSetup } from "../../../src/coordinator/optimizer-steps.js";
import { denominatorOf } from "../../../src/learner/shards.js";
import { sleep } from "../../../src/shared/abort.js";
import type { RealCoordinator } from "../rpc/real-coordinator.js";
import { PAD, sftRows, sftSettings, shardsOf, VOCABULARY } from "./fixtures.js";

export const SHARDS = 4;
export const rows = { kind: "sft", rows: sftRows(8) } as const;
const [model] = sftSettings.models;
export const setup: StageSetup = {
  stage: "sft",
  models: [{ role: model.role, hfConfigJson: model.hfConfigJson, head: "lm", initSeed: model.initSeed }],
  tokenizer: { vocabularySize: VOCABULARY, eosIds: [0], padId: PAD },
  runShapes: [{ rows: 2, length: 32, listed: 64 }],
  materialize: () =>
    Promise.resolve({
      shards: shardsOf(rows, SHARDS),
      denominator: denominatorOf(rows),
      ptxDenominator: 0,
      learningRates: { model: 0.01 },
    }),
  checkpointState: () => Promise.reject(new Error("there is none")),
};

const never = new AbortController().signal;

export const step = (coordinator: RealCoordinator, number: number) =>
  coordinator.learners.step(
    { step: number, experienceIds: [], input: null, shardCount: SHARDS, isFinalUse: true },
    never,
  );

export async function joined({ host }: RealCoordinator, count: number): Promise<void> {
  const ready = () => [...host.state.volatile.learners].filter((learner) => learner.state === "ready").length;
  while (ready() < count) await sleep(10);
}
