/** Real learners, a real coordinator over loopback: gradients nobody can apply, and learners that do not do their part. */
import { afterEach, describe, expect, it } from "vitest";
import { roundRequest } from "../../../src/coordinator/round-manifest.js";
import { BulkServer } from "../../../src/reduce/bulk-server.js";
import { makeDeferred, sleep } from "../../../src/shared/abort.js";
import { TroupeError } from "../../../src/shared/errors.js";
import type { ShardsResult } from "../../../src/learner/learner-compute.js";
import { startRealCoordinator, type RealCoordinator } from "../rpc/real-coordinator.js";
import { InProcessLearner } from "./in-process-learner.js";
import { joined, setup, SHARDS, step } from "./sft-stage.js";

const never = new AbortController().signal;
const STATE = [{ what: "state", artifactName: "checkpoint/state" }];
const started: { coordinator: RealCoordinator; learners: InProcessLearner[]; bulk?: BulkServer }[] = [];
afterEach(async () => {
  for (const { coordinator, learners, bulk } of started.splice(0)) {
    const stopped = Promise.allSettled(learners.map((learner) => learner.stop()));
    await coordinator.close();
    bulk?.close();
    await stopped;
  }
});

async function open(
  count: number,
  options: Parameters<typeof startRealCoordinator>[0] = {},
): Promise<{ coordinator: RealCoordinator; learners: InProcessLearner[] }> {
  const coordinator = await startRealCoordinator({ maxArtifactBytes: 1 << 24, ...options });
  coordinator.learners.startStage(setup);
  const learners = Array.from(
    { length: count },
    (_, i) => new InProcessLearner(`learner-${i}`, coordinator.address),
  );
  started.push({ coordinator, learners, bulk: options.bulk });
  await joined(coordinator, count);
  return { coordinator, learners };
}

const incarnations = ({ host }: RealCoordinator) =>
  Object.fromEntries([...host.state.volatile.members].map(([name, { incarnation }]) => [name, incarnation]));

describe("a gradient that cannot be applied", { timeout: 60_000 }, () => {
  const routes = [
    ["the AllReduce call", { allReduce: "star" }, false],
    ["the bulk channel to the coordinator", { allReduce: "star" }, true],
    ["learner to learner", { allReduce: "sharded" }, true],
    ["learner to learner, bf16", { allReduce: "sharded", wire: "bf16" }, true],
  ] as const;
  // Finite, and so are its neighbours; their squares are beyond float32.
  const cases = routes.flatMap((route) => [NaN, Infinity, 1e30].map((value) => [...route, value] as const));
  it.each(cases)("is voted down by everybody: %s, %s, bulk %s, %s", async (_, cluster, hasBulk, value) => {
    const bulk = hasBulk
      ? await BulkServer.listen({ host: "127.0.0.1", port: 0, isEncrypted: false })
      : undefined;
    const { coordinator, learners } = await open(2, { cluster, bulk });
    const before = await learners[0].stateSha256();
    learners[1].intercept = (name, result) => {
      if (name !== "computeShards") return result;
      const { gradients } = (result as ShardsResult).nodes[0];
      gradients[gradients.length - 1] = value;
      return result;
    };
    expect((await step(coordinator, 1)).outcome).toBe("skipped");
    learners[1].intercept = undefined;
    expect(await learners[0].stateSha256()).toBe(before);
    expect((await step(coordinator, 2)).outcome).toBe("committed");
    await coordinator.learners.publish(STATE, never); // the commit has been heard
    const [a, b] = await Promise.all(learners.map((learner) => learner.stateSha256()));
    expect(b).toBe(a);
    expect(coordinator.failures).toEqual([]);
  });
});

describe("a committed step that a learner cannot apply", { timeout: 60_000 }, () => {
  const failing = (learner: InProcessLearner, error: TroupeError, times: number) => {
    let left = times;
    learner.intercept = (name, result) => {
      if (name === "applyGradients" && left-- > 0) throw error;
      return result;
    };
  };

  it("costs that learner its state, which it copies from another", async () => {
    const { coordinator, learners } = await open(2);
    failing(learners[1], new TroupeError("STORAGE", "no memory is left"), 1);
    await step(coordinator, 1);
    await step(coordinator, 2);
    await joined(coordinator, 2);
    await coordinator.learners.publish(STATE, never);
    const [a, b] = await Promise.all(learners.map((learner) => learner.stateSha256()));
    expect(b).toBe(a);
    expect(coordinator.host.state.volatile.counters.heals).toBeGreaterThan(2);
    expect(coordinator.failures).toEqual([]);
  });

  it("ends the run with the numbers' exit code when the numbers are to blame", async () => {
    const { coordinator, learners } = await open(1);
    failing(learners[0], new TroupeError("NUMERIC", "the norm is beyond float32"), Infinity);
    await step(coordinator, 1);
    while (coordinator.failures.length === 0) await sleep(10);
    expect(coordinator.failures).toMatchObject([
      {
        code: "NUMERIC",
        diagnosis: expect.stringMatching(/step 1 of sft was committed.*beyond float32/) as string,
      },
    ]);
  });

  it("ends the run when nobody can, however often it is tried", async () => {
    const { coordinator, learners } = await open(1, { core: { maxStepAttempts: 3, regroupMs: 1 } });
    failing(learners[0], new TroupeError("STORAGE", "no memory is left"), Infinity);
    await step(coordinator, 1);
    while (coordinator.failures.length === 0) await sleep(10);
    expect(coordinator.failures).toMatchObject([
      { code: "STORAGE", diagnosis: expect.stringMatching(/3 times in a row \(last: learner-0/) as string },
    ]);
  });
});

describe("a learner whose computation", { timeout: 60_000 }, () => {
  it("never returns is left out, the others go on, and its process ends", async () => {
    const { coordinator, learners } = await open(2, { core: { stepTimeoutMs: 300 } });
    const before = incarnations(coordinator);
    learners[1].intercept = (name, result) =>
      name === "computeShards" ? new Promise(() => undefined) : result;
    for (const number of [1, 2, 3]) expect((await step(coordinator, number)).outcome).toBe("committed");
    await expect(learners[1].ended).rejects.toMatchObject({
      code: "INTERNAL",
      message: expect.stringMatching(/does not return/) as string,
    });
    expect(incarnations(coordinator)["learner-0"]).toBe(before["learner-0"]);
    expect(coordinator.failures).toEqual([]);
  });

  it("never returns from a minibatch of a round is left out as well", async () => {
    const { coordinator, learners } = await open(2, {
      cluster: { sync: "parameters", syncEvery: 1, roundPatience: null },
      core: { stepTimeoutMs: 300, round: { timeoutMs: 300 } },
    });
    learners[1].intercept = (name, result) => (name === "innerStep" ? new Promise(() => undefined) : result);
    const minibatch = { experienceIds: [], input: null, isFinalUse: true, shardCount: SHARDS };
    for (const number of [1, 2]) {
      const request = roundRequest([minibatch], number, number);
      expect((await coordinator.learners.step(request, never)).outcome).toBe("committed");
    }
    await expect(learners[1].ended).rejects.toMatchObject({
      code: "INTERNAL",
      message: expect.stringMatching(/does not return/) as string,
    });
    expect(coordinator.failures).toEqual([]);
  });

  it("takes longer than an attempt has it done in the next one", async () => {
    const { coordinator, learners } = await open(2, { core: { stepTimeoutMs: 300 } });
    const before = incarnations(coordinator);
    const { volatile } = coordinator.host.state;
    const isGivenUp = makeDeferred<void>();
    const { state } = learners[1];
    const dropVote = state.dropVote.bind(state);
    let orders = 0;
    state.dropVote = () => {
      dropVote();
      orders += 1;
      if (orders === 2) setImmediate(isGivenUp.resolve); // it was told to begin, and now to stop
    };
    let computed = 0;
    learners[1].intercept = async (name, result) => {
      if (name !== "computeShards") return result;
      computed += 1;
      await isGivenUp.promise;
      return result;
    };
    expect((await step(coordinator, 1)).outcome).toBe("committed");
    expect(computed).toBe(1);
    expect(incarnations(coordinator)).toEqual(before);
    expect(volatile.suspects.size).toBe(0);
    expect(coordinator.failures).toEqual([]);
  });
});

describe("what a learner says of an attempt", { timeout: 60_000 }, () => {
  it("that is over changes nothing, and of another learner it is no proof", async () => {
    const { coordinator, learners } = await open(2, { cluster: { allReduce: "sharded" } });
    const before = incarnations(coordinator);
    const { host } = coordinator;
    const hold = makeDeferred<void>();
    let isHeld = true;
    for (const learner of learners)
      learner.intercept = async (name, result) => {
        if (name === "computeShards" && isHeld) await hold.promise;
        return result;
      };
    const done = step(coordinator, 1);
    while (host.state.volatile.activeStep === null) await sleep(5);
    const { generation } = host.state.volatile.activeStep;
    const { steps } = coordinator.learners as unknown as {
      steps: { receiveFailure: (failure: object, from: object) => void };
    };
    const say = (about: number, suspectWorkerId: string) =>
      steps.receiveFailure(
        {
          errorCode: "UNREACHABLE",
          message: "cut",
          suspectWorkerId,
          generation: about,
          step: 1,
          isDecided: false,
        },
        { workerId: "learner-0", incarnation: before["learner-0"] },
      );
    say(generation - 1, "learner-1");
    await host.settled();
    expect(host.state.volatile.counters.stepsAborted).toBe(0);
    say(generation, "learner-1");
    await host.settled();
    expect(host.state.volatile.counters.stepsAborted).toBe(1);
    expect(host.state.volatile.suspects.size).toBe(0);
    isHeld = false;
    hold.resolve();
    expect((await done).outcome).toBe("committed");
    expect(incarnations(coordinator)).toEqual(before);
    expect(coordinator.failures).toEqual([]);
  });
});
