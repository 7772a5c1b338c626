import { expect, it } from "vitest";
import type { CoordinatorEvent } from "../../../src/coordinator/core/index.js";
import type { StageSetup } from "../../../src/coordinator/optimizer-steps.js";
import { ParameterRounds } from "../../../src/coordinator/parameter-rounds.js";
import { roundRequest } from "../../../src/coordinator/round-manifest.js";
import type { StreamRegistry } from "../../../src/coordinator/stream-registry.js";
import { createLogger } from "../../../src/observability/logger.js";
import type { LearnerDirective } from "../../../src/rpc/generated/troupe/v1/LearnerDirective.js";
import { setup } from "../learner/sft-stage.js";

/** A round of two minibatches, handed out to one learner. */
async function begin() {
  const events: CoordinatorEvent[] = [];
  const streams = { whenBound: () => Promise.resolve(true), deliver: () => Promise.resolve(true) };
  const rounds = new ParameterRounds({
    patience: null,
    answerLimitMs: 60_000,
    dispatch: (event) => void events.push(event),
    logger: createLogger({ role: "coordinator", level: "silent" }),
    streams: streams as unknown as StreamRegistry<LearnerDirective>,
    openSum: () => undefined,
  });
  const minibatch = { experienceIds: [], input: null, isFinalUse: true, shardCount: 4 };
  const { experienceIds, input, shardCount } = roundRequest([minibatch, minibatch], 1, 1);
  await rounds.start(
    {
      ...{ type: "StartStep", stage: "sft", generation: 3, step: 1, isReplay: false, limitMs: 60_000 },
      ...{ experienceIds, input, shardCount },
      members: [{ workerId: "l1", incarnation: 7, rank: 0, firstShard: 0, shardCount: 4 }],
    },
    setup as StageSetup,
  );
  const report = (minibatches: number, incarnation = 7) =>
    rounds.finish({ workerId: "l1", incarnation }, { generation: 3, step: 1, minibatches });
  return { events, report };
}

it.each([NaN, -1, Infinity, 2.5])("a report of %s of two minibatches is refused", async (minibatches) => {
  const { events, report } = await begin();
  expect(() => report(minibatches)).toThrow(/RoundTrained.minibatches of l1: expected 0 to 2, got/);
  expect(events).toEqual([]);
});

it("a report counts from the member's own process only", async () => {
  const { events, report } = await begin();
  report(2, 6);
  report(2, 8);
  expect(events).toEqual([]);
  report(2);
  expect(events).toMatchObject([{ type: "RoundTrained", workerIds: ["l1"] }]);
});
