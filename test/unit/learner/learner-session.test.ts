/** Real learners, a real coordinator over loopback: what survives a coordinator, and what a flipped bit comes to. */
import { afterEach, expect, it } from "vitest";
import type { StepKey } from "../../../src/learner/gradient-sync.js";
import { makeDeferred, sleep } from "../../../src/shared/abort.js";
import { MemoryLog } from "../../../src/coordinator/journal/index.js";
import { startRealCoordinator, type RealCoordinator } from "../rpc/real-coordinator.js";
import { InProcessLearner } from "./in-process-learner.js";
import { joined, rows, setup, step } from "./sft-stage.js";

const never = new AbortController().signal;
let checkpoints = 0;
const state = () => [{ what: "state", artifactName: `checkpoint/${checkpoints++}/state` }];
const learners: InProcessLearner[] = [];
const coordinators: RealCoordinator[] = [];

afterEach(async () => {
  const stopped = Promise.all(learners.splice(0).map((learner) => learner.stop()));
  for (const coordinator of coordinators.splice(0)) await coordinator.close();
  await stopped;
});

async function coordinate(
  options: Parameters<typeof startRealCoordinator>[0] = {},
): Promise<RealCoordinator> {
  const coordinator = await startRealCoordinator(options);
  coordinators.push(coordinator);
  return coordinator;
}

async function open(count: number, pieceBytes?: number): Promise<RealCoordinator> {
  const coordinator = await coordinate({ maxArtifactBytes: 1 << 24, pieceBytes });
  coordinator.learners.startStage(setup);
  for (let i = 0; i < count; i++) learners.push(new InProcessLearner(`learner-${i}`, coordinator.address));
  await joined(coordinator, count);
  return coordinator;
}

const stepsHeld = () =>
  learners.map(({ state }) => {
    const { position } = state.holdings();
    return { applied: position?.step, voted: position?.voted?.step };
  });

const shas = () => Promise.all(learners.map((learner) => learner.stateSha256()));

it("learners with one history have one digest and one state", async () => {
  const coordinator = await open(2);
  for (const number of [1, 2]) await step(coordinator, number);
  await coordinator.learners.publish(state(), never); // the commit has been heard
  const [a, b] = learners.map(({ state }) => state.position);
  expect(a).toEqual(b);
  expect(a).toMatchObject({ step: 2, digest: coordinator.host.state.durable.manifests[1].hash });
  expect(new Set(await shas()).size).toBe(1);
});

it("a minibatch that no message can hold trains like one that fits", async () => {
  const longest = Math.max(...rows.rows.map(({ ids }) => 4 + 5 * ids.length));
  const states: string[] = [];
  for (const pieceBytes of [undefined, longest + 1]) {
    const coordinator = await open(1, pieceBytes);
    for (const number of [1, 2]) await step(coordinator, number);
    states.push((await coordinator.learners.publish(state(), never)).stateSha256);
    expect(coordinator.failures).toEqual([]);
    await Promise.all(learners.splice(0).map((learner) => learner.stop()));
  }
  expect(states[1]).toBe(states[0]);
});

it("a flipped bit of one learner in three is undone before a checkpoint is written", async () => {
  const coordinator = await open(3);
  await step(coordinator, 1);
  await coordinator.learners.publish(state(), never);
  const [right] = await shas();
  await learners[0].flipBit(); // it would have been asked for the checkpoint
  expect(new Set(await shas()).size).toBe(2);
  const { stateSha256 } = await coordinator.learners.publish(state(), never);
  expect(stateSha256).toBe(right);
  await joined(coordinator, 3);
  expect(await shas()).toEqual([right, right, right]);
  expect(coordinator.failures).toEqual([]);
});

it("a flipped bit of one learner in two ends the run: nobody can tell who is right", async () => {
  const coordinator = await open(2);
  await step(coordinator, 1);
  await coordinator.learners.publish(state(), never);
  await learners[1].flipBit();
  const ending = new AbortController();
  const publishing = coordinator.learners.publish(state(), ending.signal).catch(() => "ended");
  while (coordinator.failures.length === 0) await sleep(10);
  ending.abort();
  expect(await publishing).toBe("ended");
  expect(coordinator.failures).toMatchObject([
    {
      code: "DATA",
      diagnosis: expect.stringMatching(/learner-0 \w{16}, learner-1 \w{16}.*no majority/) as string,
    },
  ]);
});

it("a step whose commit no learner heard is applied from their votes under the next coordinator", async () => {
  const first = await open(2);
  await step(first, 1);
  await first.learners.publish(state(), never);
  // The record is written, and then the process is gone before it tells anybody.
  type Send = (workerId: string, directive: object) => boolean;
  const { streams } = first.learners as unknown as { streams: { send: Send } };
  const send = streams.send.bind(streams);
  streams.send = (workerId, directive) => !("commit" in directive) && send(workerId, directive);
  await step(first, 2);
  expect(stepsHeld()).toEqual([
    { applied: 1, voted: 2 },
    { applied: 1, voted: 2 },
  ]);
  const port = Number(first.address.split(":")[1]);
  await first.close();
  coordinators.length = 0;
  const core = { drainTimeoutMs: 0 }; // nobody comes for what its learners hold in the end
  const second = await coordinate({ log: first.log, port, maxArtifactBytes: 1 << 24, core });
  second.learners.startStage(setup);
  await joined(second, 2);
  expect(stepsHeld()).toEqual([{ applied: 2 }, { applied: 2 }]);
  await step(second, 3);
  expect(second.host.state.volatile.counters.stepsReplayed).toBe(0);
  const { stateSha256 } = await second.learners.publish(state(), never);

  // The same three steps without a loss.
  await Promise.all(learners.splice(0).map((learner) => learner.stop()));
  const calm = await open(2);
  for (const number of [1, 2, 3]) await step(calm, number);
  expect((await calm.learners.publish(state(), never)).stateSha256).toBe(stateSha256);
});

/** What a test reaches into: the directives on their way to learners, and the votes on their way back. */
interface Inside {
  readonly streams: {
    send: (workerId: string, directive: object) => boolean;
    deliver: (workerId: string, incarnation: number, directive: object) => Promise<boolean>;
  };
  readonly steps: { receiveVote: (...vote: unknown[]) => void };
}
const insideOf = ({ learners }: RealCoordinator): Inside => learners as unknown as Inside;

/** Resolves when the first vote came, which is lost: its learner waits for a decision. */
function loseOneVote(coordinator: RealCoordinator): Promise<void> {
  const { steps } = insideOf(coordinator);
  const receive = steps.receiveVote.bind(steps);
  return new Promise((resolve) => {
    steps.receiveVote = () => {
      steps.receiveVote = receive;
      resolve();
    };
  });
}

it("a step that is done again is cut as its manifest says", async () => {
  const log = new MemoryLog();
  const manifest = { stage: "sft", generation: 1, step: 1 };
  await log.append([
    { record: { type: "EpochStarted", epoch: 1 } },
    { record: { type: "StageStarted", stage: "sft" } },
    {
      record: {
        ...{ type: "StepPrepared", ...manifest, experienceIds: [], input: null },
        ...{ shardCount: 2, isFinalUse: true },
      },
    },
    { record: { type: "StepCommitted", ...manifest, hash: "of two shards" } },
  ]);
  const coordinator = await coordinate({ log });
  const cut = makeDeferred<number>();
  coordinator.learners.startStage({
    ...setup,
    materialize: (ids, input, number, shardCount) => {
      cut.resolve(shardCount);
      return setup.materialize(ids, input, number, shardCount);
    },
  });
  learners.push(new InProcessLearner("learner-0", coordinator.address));
  expect(await cut.promise).toBe(2);
});

it("a stage is not gone on with in steps of another size", async () => {
  const log = new MemoryLog();
  await log.append([
    { record: { type: "EpochStarted", epoch: 1 } },
    { record: { type: "StageStarted", stage: "sft", minibatchesPerStep: 16 } },
  ]);
  const { learners: group } = await coordinate({ log });
  expect(() => group.startStage(setup)).toThrow(
    /cluster\.syncEvery: stage sft was begun with 16 minibatches to a step, now a step has 1/,
  );
  const own = await coordinate();
  own.learners.startStage(setup);
  expect(own.host.state.durable.minibatchesPerStep).toBe(1);
  own.learners.startStage(setup);
});

it("a step that is given up while it is packed is not sent after the word that it is over", async () => {
  const coordinator = await coordinate({ maxArtifactBytes: 1 << 24 });
  const packed = makeDeferred<void>();
  coordinator.learners.startStage({
    ...setup,
    materialize: async (ids, input, number, shardCount) => {
      if (number === 2) await packed.promise;
      return setup.materialize(ids, input, number, shardCount);
    },
  });
  for (const name of ["learner-0", "learner-1"])
    learners.push(new InProcessLearner(name, coordinator.address));
  await joined(coordinator, 2);
  await step(coordinator, 1);
  const { streams } = insideOf(coordinator);
  const told: string[] = [];
  const deliver = streams.deliver.bind(streams);
  streams.deliver = (workerId, incarnation, directive) => {
    if ("train" in directive) told.push(`${workerId} train ${(directive.train as StepKey).generation}`);
    return deliver(workerId, incarnation, directive);
  };
  const { volatile } = coordinator.host.state;
  const done = step(coordinator, 2);
  while (volatile.activeStep?.manifest.step !== 2) await sleep(1);
  const { generation } = volatile.activeStep;
  const { workerId, incarnation } = volatile.members.get("learner-1")!;
  // It is brought to the group's step first, so the next generation is some time away.
  coordinator.host.dispatch({ type: "LearnerBehind", workerId, incarnation, generation, appliedStep: 0 });
  packed.resolve();
  await done;
  expect(told.sort()).toEqual([`learner-0 train ${generation + 1}`, `learner-1 train ${generation + 1}`]);
  expect(coordinator.failures).toEqual([]);
});

it("a step whose end a learner never heard of is given up when a later one comes", async () => {
  const coordinator = await open(1);
  const { streams } = insideOf(coordinator);
  const send = streams.send.bind(streams);
  streams.send = (workerId, directive) => "abort" in directive || send(workerId, directive);
  const voted = loseOneVote(coordinator);
  const done = step(coordinator, 1);
  await voted;
  const { generation } = coordinator.host.state.volatile.activeStep!;
  coordinator.host.dispatch({ type: "ReduceFailed", generation, step: 1, workerId: null, reason: "a test" });
  await done;
  expect(coordinator.failures).toEqual([]);
});

it("a learner that waits for its step comes back when its session ends", async () => {
  const coordinator = await open(1);
  const { streams } = insideOf(coordinator);
  const trains: object[] = [];
  const deliver = streams.deliver.bind(streams);
  streams.deliver = (workerId, incarnation, directive) => {
    trains.push(directive);
    return deliver(workerId, incarnation, directive);
  };
  const voted = loseOneVote(coordinator);
  const done = step(coordinator, 1);
  await voted;
  const { host } = coordinator;
  const { workerId, incarnation } = host.state.volatile.members.get("learner-0")!;
  await deliver(workerId, incarnation, trains[0]); // twice: what follows on the stream waits for the first
  await sleep(50);
  host.dispatch({ type: "WorkerLeft", workerId, incarnation });
  await done;
  expect(host.state.volatile.members.get(workerId)!.incarnation).toBeGreaterThan(incarnation);
});
