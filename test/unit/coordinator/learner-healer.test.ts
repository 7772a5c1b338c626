import { beforeEach, expect, it } from "vitest";
import type { ArtifactStore } from "../../../src/coordinator/artifact-store.js";
import type { CoreHost } from "../../../src/coordinator/core-host.js";
import type { CoordinatorEvent, HealLearner } from "../../../src/coordinator/core/index.js";
import { LearnerHealer } from "../../../src/coordinator/learner-healer.js";
import type { LearnerRequests } from "../../../src/coordinator/learner-requests.js";
import type { StageSetup } from "../../../src/coordinator/optimizer-steps.js";
import type { StreamRegistry } from "../../../src/coordinator/stream-registry.js";
import { createLogger } from "../../../src/observability/logger.js";
import type { LearnerDirective } from "../../../src/rpc/generated/troupe/v1/LearnerDirective.js";
import { makeDeferred, type Deferred } from "../../../src/shared/abort.js";

/** What was asked of whom, answered by the test. */
let asked: { workerId: string; directive: LearnerDirective; answer: Deferred<unknown> }[];
let events: CoordinatorEvent[];
let healer: LearnerHealer;

const stage = (name: string): StageSetup =>
  ({ stage: name, models: [], tokenizer: {}, runShapes: [] }) as unknown as StageSetup;
const order = (change: Partial<HealLearner>): HealLearner => ({
  type: "HealLearner",
  workerId: "l1",
  incarnation: 1,
  healId: 1,
  stage: "reward",
  step: 4,
  source: { kind: "peer", workerId: "l2", incarnation: 2 },
  ...change,
});
const settle = () => new Promise((resolve) => setTimeout(resolve, 5));
const setupsOf = (workerId: string) =>
  asked
    .filter((one) => one.workerId === workerId && one.directive.setup)
    .map(({ directive }) => directive.setup);

beforeEach(() => {
  asked = [];
  events = [];
  healer = new LearnerHealer({
    host: { dispatch: (event: CoordinatorEvent) => void events.push(event) } as unknown as CoreHost,
    logger: createLogger({ role: "coordinator", level: "silent" }),
    artifacts: {
      remove: () => Promise.resolve(),
      handoverDir: () => Promise.resolve("/handover"),
    } as unknown as ArtifactStore,
    streams: { whenBound: () => Promise.resolve(true) } as unknown as StreamRegistry<LearnerDirective>,
    requests: {
      ask: (workerId: string, directive: LearnerDirective) => {
        const answer = makeDeferred<unknown>();
        asked.push({ workerId, directive, answer });
        return answer.promise;
      },
    } as unknown as LearnerRequests,
    limitMs: 1_000,
    averagesParameters: false,
    fail: (error) => {
      throw error;
    },
  });
});

it("reports the digest of the history that the learner's new state has", async () => {
  healer.enter(stage("reward"));
  void healer.heal(order({}));
  await settle();
  expect(asked[0]).toMatchObject({
    workerId: "l2",
    directive: { publish: { items: [{ what: "state" }], handoverDir: "/handover" } },
  });
  asked[0].answer.resolve({ published: { artifacts: [{ name: "copy" }] } });
  await settle();
  asked[1].answer.resolve({ setupDone: { appliedStep: 4, digest: "d4" } });
  await settle();
  expect(events).toEqual([
    { type: "StateLent", workerId: "l1", incarnation: 1, healId: 1 },
    {
      type: "LearnerHealed",
      workerId: "l1",
      incarnation: 1,
      healId: 1,
      position: { stage: "reward", step: 4, hash: "d4" },
    },
  ]);
});

it("gives a learner no state of a stage that ended while it was copied", async () => {
  healer.enter(stage("reward"));
  void healer.heal(order({}));
  await settle();
  healer.enter(undefined);
  healer.enter(stage("ppo"));
  void healer.heal(order({ healId: 2, stage: "ppo", step: 0, source: { kind: "initial" } }));
  await settle();
  asked[0].answer.resolve({ published: { artifacts: [{ name: "copy" }] } });
  await settle();
  expect(setupsOf("l1")).toMatchObject([{ stage: "ppo", appliedStep: 0 }]);
  expect(events).toEqual([]);
});

it("carries out only the newest of two orders for a learner", async () => {
  healer.enter(stage("ppo"));
  void healer.heal(order({ stage: "ppo", step: 8 }));
  await settle();
  void healer.heal(order({ healId: 2, stage: "ppo", step: 0, source: { kind: "initial" } }));
  await settle();
  asked[0].answer.resolve({ published: { artifacts: [{ name: "copy" }] } });
  await settle();
  expect(setupsOf("l1")).toMatchObject([{ healId: 2, appliedStep: 0 }]);
});

it("asks a learner only to apply what it voted for", async () => {
  healer.enter(stage("ppo"));
  void healer.heal(order({ stage: "ppo", step: 9, source: { kind: "vote", hash: "d9" } }));
  await settle();
  expect(asked).toHaveLength(1);
  expect(asked[0].directive).toEqual({ applyVoted: { stage: "ppo", step: 9, digest: "d9", healId: 1 } });
});
