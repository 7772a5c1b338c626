import { describe, expect, it } from "vitest";
import { checkRun } from "../../../src/simulation/checker.js";
import {
  makeScenario,
  simulateScenario,
  simulateSeed,
  type Fault,
  type Scenario,
} from "../../../src/simulation/index.js";
import { World } from "../../../src/simulation/world.js";

/** Coordinator deaths right around commits. */
const killsAround = (seed: number): Fault[] =>
  (["afterSync", "midEffects", "beforeSync", "now"] as const).map((point, i) => {
    return {
      kind: "killCoordinator",
      atMs: 150 + 170 * i + 13 * (seed % 23),
      target: 0,
      durationMs: 50,
      point,
    };
  });

describe("simulation", () => {
  it("holds the contract under 600 seeds of faults", () => {
    for (let seed = 1; seed <= 600; seed++) {
      const { violations } = simulateSeed(seed);
      expect(violations, `seed ${seed}`).toEqual([]);
    }
  });

  it("repeats a seed exactly", () => {
    const run = (): unknown => {
      const { entries, records, endedAtMs } = new World(makeScenario(77), "none").run();
      return { entries, records, endedAtMs };
    };
    expect(run()).toEqual(run());
  });

  it("draws different faults for different seeds, and every kind of them", () => {
    const kinds = new Set<string>();
    for (let seed = 1; seed <= 300; seed++)
      for (const fault of makeScenario(seed).faults) kinds.add(fault.kind);
    expect([...kinds].sort()).toEqual(
      [
        "clockJump",
        "corruptLearner",
        "crawlLearner",
        "cutLearners",
        "drainLearner",
        "drainRollout",
        "hangLearner",
        "killAll",
        "killCoordinator",
        "killLearner",
        "killRollout",
        "partitionLearner",
        "partitionRollout",
        "failJournal",
        "pauseCoordinator",
        "pauseLearner",
        "pauseRollout",
        "rollLearners",
        "slowLearner",
        "slowRollout",
      ].sort(),
    );
  });

  it("ends with the same parameters with a kill of everything as without", () => {
    const calm: Scenario = {
      ...makeScenario(5),
      rounds: null,
      capacityBytes: 1_000_000,
      maxStalenessVersions: 0,
      faults: [],
      nonFiniteIds: [],
      poisonIds: [],
      nonFiniteSteps: [],
    };
    const finalOf = (scenario: Scenario): number | null => {
      const history = new World(scenario, "none").run();
      expect(checkRun(scenario, history)).toEqual([]);
      return history.finalParameters;
    };
    const expected = finalOf(calm);
    for (const atMs of [150, 333, 480, 700]) {
      const faults = [{ kind: "killAll", atMs, target: 1, durationMs: 100, point: "now" }] as const;
      expect(finalOf({ ...calm, faults })).toBe(expected);
    }
  });

  it("repeats no committed step while a learner lives that holds it, or the vote for it", () => {
    let kills = 0;
    for (let seed = 1; seed <= 150; seed++) {
      const base = makeScenario(seed);
      const isKill = ({ kind }: Fault): boolean => kind === "killCoordinator";
      const faults = [...base.faults.filter(isKill), ...killsAround(seed)].sort((a, b) => a.atMs - b.atMs);
      kills += faults.length;
      const quiet = { drop: 0, duplicate: 0, delayMs: base.network.delayMs, jitterMs: 0 }; // one stream keeps its order
      const calm = { damagesCheckpoints: false, nonFiniteSteps: [] };
      const scenario = { ...base, network: quiet, faults, ...calm };
      const { entries } = new World(scenario, "none").run();
      const repeated = entries.filter((entry) => entry.type === "started" && entry.isReplay);
      expect(repeated, `seed ${seed}`).toEqual([]);
    }
    expect(kills).toBeGreaterThan(600);
  });

  it("gives up what kills every worker, at the attempts of every run", () => {
    let poisoned = 0;
    let givenUp = 0;
    for (let seed = 1; seed <= 200; seed++) {
      const scenario = makeScenario(seed);
      if (scenario.poisonIds.length === 0) continue;
      poisoned += 1;
      const { records } = new World(scenario, "none").run();
      for (const record of records)
        if (record.type === "ExperiencesAbandoned" && record.reason === "poison") givenUp += 1;
    }
    expect(poisoned).toBeGreaterThan(5);
    expect(givenUp).toBeGreaterThan(poisoned / 2);
  });

  it("refuses coordinators that wake up beside their successor, and recovers from appends that fail", () => {
    const refusals = { replaced: 0, failed: 0 };
    for (let seed = 1; seed <= 200; seed++) {
      const { entries, isFinished } = new World(makeScenario(seed), "none").run();
      for (const entry of entries) if (entry.type === "refused") refusals[entry.why] += 1;
      expect(isFinished, `seed ${seed}`).toBe(true);
    }
    expect(refusals.replaced).toBeGreaterThan(3);
    expect(refusals.failed).toBeGreaterThan(5);
  });

  it("commits an iteration before it keeps a checkpoint of it, as the product does, and none of the last", () => {
    const { records } = new World({ ...makeScenario(5), checkpointEvery: 1, faults: [] }, "none").run();
    const { iterations } = makeScenario(5);
    const ends = records
      .map(({ type }) => type)
      .filter((type) => /IterationCommitted|CheckpointSaved/.test(type));
    expect(ends).toEqual([
      ...Array.from({ length: iterations - 1 }, () => ["IterationCommitted", "CheckpointSaved"]).flat(),
      "IterationCommitted",
    ]);
  });

  it("averages parameters in some runs, and some of their rounds leave rows out", () => {
    let rounds = 0;
    let leftOut = 0;
    for (let seed = 1; seed <= 60; seed++) {
      const scenario = makeScenario(seed);
      if (scenario.rounds === null) continue;
      rounds += 1;
      const { records } = new World(scenario, "none").run();
      if (records.some((record) => record.type === "StepCommitted" && record.leftOut !== undefined))
        leftOut += 1;
    }
    expect(rounds).toBeGreaterThan(10);
    expect(leftOut).toBeGreaterThan(1);
  });

  it("survives a coordinator that dies at every point of the journal protocol, again and again", () => {
    const base = makeScenario(9);
    for (const point of ["beforeSync", "afterSync", "midEffects"] as const) {
      const faults = Array.from({ length: 25 }, (_, i) => {
        return { kind: "killCoordinator", atMs: 60 + 45 * i, target: 0, durationMs: 10, point } as const;
      });
      expect(simulateScenario({ ...base, faults }).violations, point).toEqual([]);
    }
  });
});

describe("checker", () => {
  const scenario: Scenario = {
    ...makeScenario(3),
    maxStalenessVersions: 0,
    faults: [],
    nonFiniteIds: [],
    poisonIds: [],
    nonFiniteSteps: [],
  };
  const honest = () => new World(scenario, "none").run();
  const invariantsOf = (history: ReturnType<typeof honest>, of: Scenario = scenario): string[] =>
    checkRun(of, history).map((violation) => violation.invariant);

  it("finds nothing in an honest history", () => {
    expect(invariantsOf(honest())).toEqual([]);
  });

  it("notices an admission that is missing from the journal", () => {
    const history = honest();
    const index = history.records.findIndex((record) => record.type === "ExperiencesAdmitted");
    history.records.splice(index, 1);
    expect(invariantsOf(history)).toContain("I2");
  });

  it("notices a lost step", () => {
    const history = honest();
    const index = history.records.findIndex((record) => record.type === "StepCommitted");
    history.records.splice(index, 1);
    expect(invariantsOf(history)).toContain("I4");
  });

  it("notices a learner that applied something else", () => {
    const history = honest();
    const index = history.entries.findIndex((entry) => entry.type === "applied");
    history.entries[index] = { type: "applied", workerId: "learner-0", generation: 1, step: 1, hash: "0" };
    expect(invariantsOf(history)).toContain("I5");
  });

  it("notices an experience trained too late", () => {
    const history = honest();
    const index = history.records.findIndex((record) => record.type === "StepPrepared");
    history.records.splice(index, 0, { type: "VersionPublished", policyVersion: 50, sha256: "" });
    expect(invariantsOf(history)).toContain("I8");
  });

  it("notices an experience trained in another iteration than its own", () => {
    const history = honest();
    const index = history.records.findIndex((record) => record.type === "IterationCommitted");
    history.records.splice(index, 1); // what follows is trained in an iteration that is not open yet
    expect(invariantsOf(history)).toContain("I13");
  });

  it("notices a ledger that does not balance", () => {
    const history = honest();
    history.entries.push({
      type: "ledger",
      owner: 1,
      admitted: 3,
      trained: 1,
      dropped: 0,
      buffered: 1,
      bufferedBytes: 10,
    });
    expect(invariantsOf(history)).toContain("I3");
  });

  describe("of averaged parameters", () => {
    const averaging: Scenario = {
      ...scenario,
      learners: 2,
      minLearners: 2,
      shardCount: 2,
      ppoEpochs: 2,
      rounds: { every: 2, patience: null, lateMs: 0 },
    };
    const honestRounds = () => new World(averaging, "none").run();
    const indexOf = ({ entries }: ReturnType<typeof honest>, type: string) =>
      entries.findIndex((entry) => entry.type === type);

    it("finds nothing in an honest history", () => {
      expect(invariantsOf(honestRounds(), averaging)).toEqual([]);
    });

    it("notices rows that are left out without a word, and ones that are said to be and are not", () => {
      const silent = honestRounds();
      // The learner has trained less than was prepared: what it did not train appears in no record.
      silent.entries.splice(indexOf(silent, "part"), 1);
      expect(invariantsOf(silent, averaging)).toContain("I5");
      const wrong = honestRounds();
      const at = wrong.records.findIndex((record) => record.type === "StepCommitted");
      const record = wrong.records[at] as Extract<(typeof wrong.records)[number], { type: "StepCommitted" }>;
      wrong.records[at] = { ...record, leftOut: ["0/0/0"] };
      expect(invariantsOf(wrong, averaging)).toContain("I3");
    });

    it("notices a row that two learners trained, and one that weighs more than it trained", () => {
      const doubled = honestRounds();
      const at = indexOf(doubled, "part");
      doubled.entries.splice(at, 0, doubled.entries[at]);
      expect(invariantsOf(doubled, averaging)).toContain("I3");
      const heavy = honestRounds();
      const average = heavy.entries.findIndex((entry) => entry.type === "averaging");
      const entry = heavy.entries[average] as Extract<(typeof heavy.entries)[number], { type: "averaging" }>;
      const members = entry.members.map((member, i) => ({ ...member, weight: i === 0 ? 0.75 : 0.25 }));
      heavy.entries[average] = { ...entry, members };
      expect(invariantsOf(heavy, averaging)).toContain("I5");
    });
  });

  it("notices a step that is computed again although learners only left in turn", () => {
    const faults = [{ kind: "rollLearners", atMs: 300, target: 0, durationMs: 10, point: "now" }] as const;
    const rolling: Scenario = { ...scenario, learners: 2, minLearners: 1, copyMs: 900, faults };
    const history = new World(rolling, "none").run();
    expect(invariantsOf(history, rolling)).toEqual([]);
    const at = history.entries.findIndex((entry) => entry.type === "started");
    history.entries[at] = { ...history.entries[at], isReplay: true } as (typeof history.entries)[number];
    expect(invariantsOf(history, rolling)).toContain("I14");
  });

  it("notices a prompt that is blamed for nothing", () => {
    const history = honest();
    const index = history.records.findIndex((record) => record.type === "ExperiencesAdmitted");
    history.records.splice(index, 0, {
      type: "ExperiencesAbandoned",
      experienceIds: ["0/0/0"],
      reason: "poison",
    });
    expect(invariantsOf(history)).toContain("I15");
  });

  it("notices a coordinator that writes after it was replaced, and one that takes workers in before its epoch is open", () => {
    const late = honest();
    late.entries.push({ type: "appended", owner: 2, epoch: 2 }, { type: "appended", owner: 1, epoch: 1 });
    expect(invariantsOf(late)).toEqual(["I6"]);
    const early = honest();
    const index = early.entries.findIndex((entry) => entry.type === "welcomed");
    early.entries[index] = { ...early.entries[index], durable: 0 } as (typeof early.entries)[number];
    expect(invariantsOf(early)).toEqual(["I6"]);
  });

  it("notices a message that changes something although its sender, or what it speaks of, is over", () => {
    for (const rule of ["I6", "I12"] as const) {
      const history = honest();
      const change = { event: "StepVote", workerId: "learner-0", change: "activeStep" };
      history.entries.push({ type: "strayed", rule, ...change });
      expect(invariantsOf(history)).toEqual([rule]);
    }
  });

  it("notices a checkpoint that is damaged, not the newest one, or not what the learners voted for", () => {
    const history = honest();
    for (const step of [1, 2])
      history.records.push({
        ...{
          type: "CheckpointSaved",
          checkpointId: `c${step}`,
          stage: "ppo",
          step,
          keptFrom: 0,
          resume: null,
        },
      } as (typeof history.records)[number]);
    const invariantsWith = (entry: (typeof history.entries)[number]) =>
      invariantsOf({ ...history, entries: [...history.entries, entry] });
    const durable = history.records.length;
    const restored = { type: "restored", checkpointId: "c2", isDamaged: false, durable } as const;
    expect(invariantsWith(restored)).toEqual([]);
    expect(invariantsWith({ ...restored, isDamaged: true })).toContain("I10");
    expect(invariantsWith({ ...restored, checkpointId: "c1" })).toContain("I10");
    expect(invariantsWith({ type: "kept", as: "c2", step: 2, parameters: 7 })).toContain("I5");
  });

  it("notices a run that is silent for longer than all its deadlines", () => {
    const history = honest();
    history.longestSilenceMs = 60_000;
    expect(invariantsOf(history)).toEqual(["I11"]);
  });

  it("notices an evaluation that is taken twice", () => {
    const history = honest();
    const answer = { type: "evaluated", owner: 1, taskId: "after-0", attempt: 1 } as const;
    history.entries.push(answer, answer);
    expect(invariantsOf(history)).toEqual(["I2"]);
  });

  it("notices a run that lost an experience with which nothing was wrong", () => {
    const history = honest();
    const losing = { ...scenario, nonFiniteIds: ["0/0/0"] };
    // The run trained what its data says is not finite: what it was told to leave out differs from what it did.
    expect(invariantsOf(history, losing)).toContain("I7");
  });

  it("notices a run that never ends", () => {
    const history = honest();
    history.isFinished = false;
    expect(invariantsOf(history)).toContain("I11");
  });

  it("notices other final parameters than those of a calm run", () => {
    const history = honest();
    history.finalParameters = 1;
    expect(invariantsOf(history)).toContain("I7");
  });
});
