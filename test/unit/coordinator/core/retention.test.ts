import { describe, expect, it } from "vitest";
import { collectedIds, iterationOf, livePayloadIds, status } from "../../../../src/coordinator/core/index.js";
import { releasable } from "../../../../src/coordinator/core/retention.js";
import { CoreDriver } from "./core-driver.js";

const deleted = (core: CoreDriver): string[] =>
  core.take("journal").flatMap(({ deletePayloads = [] }) => deletePayloads);
const commit = (core: CoreDriver, iteration: number): void =>
  void core.do({ type: "IterationCommitted", iteration, promptCursor: 0, resume: null });
const save = (core: CoreDriver, step: number): void =>
  void core.do({ type: "CheckpointSaved", checkpointId: `c${step}`, stage: "ppo", step, resume: null });
const live = (core: CoreDriver): string[] => [...livePayloadIds(core.state.durable)].sort();

/** Collects an iteration of four and asks for both its minibatches, the first of which is not finite. */
function skipThenCommit(core: CoreDriver, iteration: number, firstStep: number): string[] {
  const ids = core.collectAll(4, iteration);
  if (![...core.state.volatile.members.values()].some(({ role }) => role === "learner")) core.learner("l1");
  core.requestStep(firstStep, ids.slice(0, 2));
  core.voteAll("nan", false);
  core.requestStep(firstStep + 1, ids.slice(2));
  core.voteAll(`h${firstStep + 1}`);
  return ids;
}

describe("payloads", () => {
  it("that a skipped step dropped are still there for the iteration's replay after a restart", () => {
    const core = new CoreDriver();
    const ids = core.collectAll(4);
    core.learner("l1");
    core.requestStep(1, ids.slice(0, 2));
    core.voteAll("nan", false);
    expect(status(core.state).ledger.dropped).toEqual({ skippedStep: 2 });
    expect(deleted(core)).toEqual([]);
    core.restart();
    core.effects = [];
    core.collect(4);
    expect(core.takeOne("CollectCompleted").experienceIds).toEqual(ids);
    expect(live(core)).toEqual(ids);
  });

  it("of a whole iteration stay while one of its committed steps may be repeated, whatever became of each", () => {
    const core = new CoreDriver();
    const ids = skipThenCommit(core, 0, 1);
    commit(core, 0);
    // Step 2 can be repeated from the starting model, and its advantages are whitened over all four.
    expect(deleted(core)).toEqual([]);
    expect(collectedIds(core.state.durable, 0)).toEqual(ids);
    core.restart();
    core.effects = [];
    core.learner("l1");
    core.wait(3_000);
    core.heal();
    expect(core.takeOne("StartStep")).toMatchObject({ step: 2, isReplay: true });
    expect(collectedIds(core.state.durable, 0)).toEqual(ids);
  });

  it("go when the iteration is committed and a checkpoint covers it, in either order", () => {
    for (const finish of [
      [commit, 0],
      [save, 2],
    ] as const) {
      const core = new CoreDriver();
      const ids = skipThenCommit(core, 0, 1);
      const [first, second] = finish[0] === commit ? [commit, save] : [save, commit];
      first(core, finish[1]);
      expect(deleted(core)).toEqual([]);
      second(core, 2 - finish[1]);
      expect(deleted(core).sort()).toEqual(ids);
      expect(live(core)).toEqual([]);
    }
  });

  it("cost a commit no more when the stage keeps all that it has trained", () => {
    const core = new CoreDriver();
    for (let iteration = 0; iteration < 6; iteration++) {
      skipThenCommit(core, iteration, 2 * iteration + 1);
      if (iteration < 5) commit(core, iteration);
    }
    const { durable } = core.state;
    let looks = 0;
    durable.manifests = durable.manifests.map(({ experienceIds, ...manifest }) =>
      Object.defineProperty({ ...manifest, experienceIds }, "experienceIds", {
        get: () => {
          looks += 1;
          return experienceIds;
        },
      }),
    );
    expect(releasable(durable, { committedIteration: 5 })).toEqual([]);
    expect(looks).toBeLessThanOrEqual(2);
    // A checkpoint after the fourth iteration frees those before it, all at once.
    const freed = releasable(durable, { keptFrom: 8 });
    expect([...new Set(freed.map(iterationOf))]).toEqual([0, 1, 2, 3]);
  });

  it("that no step listed go as soon as they are dropped", () => {
    const core = new CoreDriver();
    const ids = core.collectAll(4);
    core.learner("l1");
    core.requestStep(1, ids.slice(0, 2));
    core.voteAll("h1");
    core.take("journal");
    commit(core, 0);
    expect(deleted(core)).toEqual(ids.slice(2));
  });
});

describe("a damaged checkpoint", () => {
  /** One committed step an iteration, with a checkpoint after each of the first `checkpoints`. */
  function run(iterations: number, checkpoints: number, keptCheckpoints: number): CoreDriver {
    const core = new CoreDriver({ keptCheckpoints });
    for (let iteration = 0; iteration < iterations; iteration++) {
      const ids = core.collectAll(2, iteration);
      if (iteration === 0) core.learner("l1");
      core.requestStep(iteration + 1, ids);
      core.voteAll(`h${iteration + 1}`);
      commit(core, iteration);
      if (iteration < checkpoints) save(core, iteration + 1);
    }
    core.restart();
    core.effects = [];
    core.register("l1", "learner", null, -1);
    core.wait(3_000);
    return core;
  }
  const damage = (core: CoreDriver, checkpointId: string): void =>
    void core.do({ type: "CheckpointDamaged", checkpointId, reason: "a file does not match its sha256" });

  it("is left aside for the one before, from which the steps since are repeated", () => {
    const core = run(4, 3, 2);
    expect(core.takeOne("HealLearner")).toMatchObject({
      step: 3,
      source: { kind: "checkpoint", checkpointId: "c3" },
    });
    damage(core, "c3");
    expect(core.takeOne("journal").record).toEqual({ type: "CheckpointQuarantined", checkpointId: "c3" });
    expect(core.takeOne("SetAsideCheckpoint")).toMatchObject({ checkpointId: "c3" });
    expect(core.effects).toMatchObject([
      { type: "HealLearner", step: 2, source: { kind: "checkpoint", checkpointId: "c2" } },
    ]);
    core.heal("h2");
    for (const step of [3, 4]) {
      expect(core.takeOne("StartStep")).toMatchObject({ step, isReplay: true });
      core.voteAll(`h${step}`);
    }
    expect(status(core.state)).toMatchObject({ step: 4, checkpointId: "c2", readyLearners: 1 });
    core.restart();
  });

  it("that is the only one leaves the starting model, as long as every step since is known", () => {
    const core = run(2, 1, 2);
    core.take("HealLearner");
    damage(core, "c1");
    expect(core.effects.at(-1)).toMatchObject({ type: "HealLearner", step: 0, source: { kind: "initial" } });
    core.heal();
    expect(core.takeOne("StartStep")).toMatchObject({ step: 1, isReplay: true });
  });

  it("with nothing before it to go on from ends the run", () => {
    const core = run(3, 3, 1);
    damage(core, "c3");
    expect(core.takeOne("StopRun")).toMatchObject({ code: "DATA" });
    // Its files may be put back: the next start tries it again.
    expect(core.take("SetAsideCheckpoint")).toEqual([]);
    expect(core.state.durable.checkpoint?.checkpointId).toBe("c3");
  });

  it("is named by mistake or twice without effect", () => {
    const core = run(4, 3, 2);
    core.effects = [];
    damage(core, "c1");
    expect(core.effects).toEqual([]);
  });

  it("keeps as many states repeatable as it is told, and forgets the steps before", () => {
    const core = run(4, 4, 2);
    expect(core.state.durable.manifests.map(({ step }) => step)).toEqual([4]);
    expect(core.state.durable.olderCheckpoints.map(({ checkpointId }) => checkpointId)).toEqual(["c3"]);
    expect(live(core)).toEqual(["3/0/0", "3/1/0"]);
  });
});
