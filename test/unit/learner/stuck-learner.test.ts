/** Real learners that copy, and one that gets stuck in what it is asked between steps. */
import { afterEach, expect, it, vi } from "vitest";
import { TrainSteps } from "../../../src/learner/train-steps.js";
import { makeDeferred, sleep } from "../../../src/shared/abort.js";
import { startRealCoordinator, type RealCoordinator } from "../rpc/real-coordinator.js";
import { shardsOf } from "./fixtures.js";
import { InProcessLearner } from "./in-process-learner.js";
import { joined, rows, setup, SHARDS, step } from "./sft-stage.js";

const never = new AbortController().signal;
const learners: InProcessLearner[] = [];
let coordinator: RealCoordinator;
afterEach(async () => {
  vi.restoreAllMocks();
  const stopped = Promise.all(learners.splice(0).map((learner) => learner.stop()));
  await coordinator.close();
  await stopped;
});

async function open(limitMs: number): Promise<void> {
  const cluster = { healTimeoutMs: limitMs, stepTimeoutMs: limitMs };
  coordinator = await startRealCoordinator({ maxArtifactBytes: 1 << 24, cluster });
  coordinator.learners.startStage(setup);
  for (let i = 0; i < 2; i++) learners.push(new InProcessLearner(`learner-${i}`, coordinator.address));
  await joined(coordinator, 2);
}

/** Sees every call of a learner's computation; a call that it takes for itself never returns. */
function watch(learner: InProcessLearner, isStuck: (name: string) => boolean): string[] {
  const names: string[] = [];
  const compute = learner.state.compute as unknown as {
    run: (name: string, argument: unknown) => Promise<unknown>;
  };
  const run = compute.run;
  compute.run = (name, argument) => {
    names.push(name);
    return isStuck(name) ? new Promise(() => undefined) : run(name, argument);
  };
  return names;
}

it.each(["publish", "evaluate"] as const)(
  "a learner that does not come back from %s is given up, and another is asked",
  async (what) => {
    await open(3_000);
    const { membersLost } = coordinator.host.state.volatile.counters;
    const asked = watch(learners[0], (name) => name === (what === "publish" ? "exportState" : "evaluate"));
    if (what === "publish") {
      const items = [{ what: "state", artifactName: "checkpoint/state" }];
      const { artifacts } = await coordinator.learners.publish(items, never);
      expect(artifacts).toHaveLength(1);
    } else {
      const { nll } = await coordinator.learners.evaluate(shardsOf(rows, SHARDS), never);
      expect(nll).toHaveLength(rows.rows.length);
    }
    expect(asked.length).toBeGreaterThan(0);
    expect(coordinator.host.state.volatile.counters.membersLost).toBeGreaterThan(membersLost);
    expect(coordinator.failures).toEqual([]);
  },
  30_000,
);

it("a learner whose models never load is trained on without, and its process ends", async () => {
  const limits = { healTimeoutMs: 3_000 };
  coordinator = await startRealCoordinator({ cluster: limits, core: { ...limits, healPatienceMs: 500 } });
  coordinator.learners.startStage(setup);
  learners.push(new InProcessLearner("learner-0", coordinator.address));
  await joined(coordinator, 1);
  const stuck = new InProcessLearner("learner-1", coordinator.address);
  const ended = stuck.ended.catch((error: unknown) => error);
  const calls = watch(stuck, (name) => name === "configure");
  while (calls.length === 0) await sleep(10);
  await step(coordinator, 1);
  expect(coordinator.host.state.durable.holders).toEqual(["learner-0"]);
  expect(await ended).toMatchObject({ code: "INTERNAL" });
  await step(coordinator, 2);
  expect(coordinator.failures).toEqual([]);
}, 30_000);

it("a learner whose source never hands its state over is not given up with it", async () => {
  const limits = { healTimeoutMs: 3_000 };
  coordinator = await startRealCoordinator({ cluster: limits, core: limits });
  const { volatile } = coordinator.host.state;
  coordinator.learners.startStage(setup);
  learners.push(new InProcessLearner("learner-0", coordinator.address));
  await joined(coordinator, 1);
  watch(learners[0], (name) => name === "exportState");
  learners.push(new InProcessLearner("learner-1", coordinator.address));
  while (volatile.members.get("learner-1")?.heal?.source.kind !== "peer") await sleep(10);
  const { incarnation } = volatile.members.get("learner-1")!;
  while (volatile.counters.membersLost === 0) await sleep(10);
  await joined(coordinator, 2);
  expect(volatile.members.get("learner-1")).toMatchObject({ incarnation });
}, 30_000);

it("a learner that never comes back from applying a step is done without, and its process ends", async () => {
  const limits = { healTimeoutMs: 2_000, stepTimeoutMs: 1_000 };
  coordinator = await startRealCoordinator({ cluster: limits, core: limits });
  coordinator.learners.startStage(setup);
  learners.push(new InProcessLearner("learner-0", coordinator.address));
  const stuck = new InProcessLearner("learner-1", coordinator.address);
  const ended = stuck.ended.catch((error: unknown) => error);
  await joined(coordinator, 2);
  watch(stuck, (name) => name === "applyGradients");
  await step(coordinator, 1);
  await step(coordinator, 2);
  expect(coordinator.host.state.durable.holders).toEqual(["learner-0"]);
  expect(await ended).toMatchObject({ code: "INTERNAL" });
  expect(coordinator.failures).toEqual([]);
}, 30_000);

it("a step that cannot be applied while its session ends leaves no state that counts", async () => {
  await open(30_000);
  const [learner] = learners;
  const compute = learner.state.compute as unknown as {
    run: (name: string, argument: unknown) => Promise<unknown>;
  };
  const { run } = compute;
  const applying = makeDeferred<void>();
  const applied = makeDeferred<void>();
  compute.run = (name, argument) => {
    if (name !== "applyGradients") return run(name, argument);
    applying.resolve();
    return applied.promise;
  };
  const closing = vi.spyOn(TrainSteps.prototype, "close");
  await step(coordinator, 1);
  await applying.promise;
  const { incarnation } = coordinator.host.state.volatile.members.get("learner-0")!;
  coordinator.host.dispatch({ type: "LearnerSilent", workerId: "learner-0", incarnation, reason: "told to" });
  while (closing.mock.calls.length === 0) await sleep(10);
  compute.run = run;
  const changes = vi.spyOn(learner.state, "forget");
  applied.reject(new Error("no memory"));
  await joined(coordinator, 2);
  expect(changes, "by the step, and by the copy that follows").toHaveBeenCalledTimes(2);
}, 30_000);

it("learners are missed while a request waits for one", async () => {
  coordinator = await startRealCoordinator();
  const { volatile } = coordinator.host.state;
  coordinator.learners.startStage(setup);
  const stopping = new AbortController();
  const asked = [1, 2].map(() => coordinator.learners.evaluate(shardsOf(rows, SHARDS), stopping.signal));
  for (const one of asked) one.catch(() => undefined);
  await expect.poll(() => volatile.noLearnersSinceMs).not.toBeNull();
  stopping.abort();
  await Promise.allSettled(asked);
  expect(volatile.isLearnerAwaited).toBe(false);
});

it("a learner that copies again before it has trained keeps its models and loads only the state", async () => {
  await open(30_000);
  const { host } = coordinator;
  const calls = watch(learners[1], () => false);
  const heal = async () => {
    calls.length = 0;
    const states = ["learner-0", "a third", "learner-1"].map((workerId) => {
      return { workerId, sha256: workerId === "learner-1" ? "odd" : "even" };
    });
    host.dispatch({ type: "StatesDiffer", step: host.state.durable.finishedStep, states });
    while (!calls.includes("loadState")) await sleep(10);
    await joined(coordinator, 2);
    return calls.filter((name) => name === "configure").length;
  };
  expect(await heal()).toBe(0);
  await step(coordinator, 1);
  expect(await heal(), "it has trained since").toBe(1);
  await step(coordinator, 2);
  await coordinator.learners.publish([], never); // the commit has been heard
  const [first, second] = await Promise.all(learners.map((learner) => learner.stateSha256()));
  expect(second).toBe(first);
}, 60_000);
