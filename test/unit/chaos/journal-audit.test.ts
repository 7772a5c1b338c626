import { describe, expect, it } from "vitest";
import { auditRecords, compareJournals } from "../../../src/chaos/journal-audit.js";
import { historyOf } from "../../../src/chaos/replay-probe.js";
import type { TrainingPlan } from "../../../src/chaos/training.js";
import type { DurableRecord } from "../../../src/coordinator/core/index.js";

/** Two iterations of 16 experiences, 4 steps that each list all of them. */
const whole = historyOf(60);
const plan: TrainingPlan = {
  iterations: 2,
  experiencesPerIteration: 16,
  stepsPerIteration: 4,
  usesPerExperience: 4,
  isReproducible: true,
  mayDrop: [],
};

const indexOf = (type: DurableRecord["type"], nth = 0): number =>
  whole.flatMap((record, i) => (record.type === type ? [i] : []))[nth];
const without = (index: number) => whole.filter((_, i) => i !== index);
const insertedAfter = (index: number, record: DurableRecord) => whole.toSpliced(index + 1, 0, record);
const broken = (records: readonly DurableRecord[]) => [
  ...new Set(auditRecords(records, plan).violations.map(({ invariant }) => invariant)),
];

describe("the audit of a journal", () => {
  it("finds nothing in a history without faults", () => {
    const facts = auditRecords(whole, plan);
    expect(facts.violations).toEqual([]);
    expect(facts).toMatchObject({ coordinatorStarts: 1, stepsBegunAgain: 0, stepsReplayed: 0 });
    expect(facts.stepHashes.size).toBe(8);
    expect(facts.versions.size).toBe(3);
  });

  it("counts a step in flight that was begun again, and committed ones that were repeated", () => {
    const prepared = whole[indexOf("StepPrepared", 2)] as DurableRecord & { type: "StepPrepared" };
    const committed = indexOf("StepCommitted", 2);
    const again = whole.toSpliced(
      committed,
      1,
      { type: "EpochStarted", epoch: 2 },
      { ...prepared, generation: 100 },
      {
        ...(whole[committed] as DurableRecord & { type: "StepCommitted" }),
        generation: 100,
      },
    );
    const renumbered = again.map((record, i) =>
      i > committed + 2 && (record.type === "StepPrepared" || record.type === "StepCommitted")
        ? { ...record, generation: record.generation + 100 }
        : record,
    );
    const facts = auditRecords(renumbered, plan);
    expect(facts.violations).toEqual([]);
    expect(facts).toMatchObject({ coordinatorStarts: 2, stepsBegunAgain: 1 });
    const replayed: DurableRecord = { type: "GenerationOpened", generation: 1_000, step: 8 };
    expect(auditRecords([...whole, replayed], plan).stepsReplayed).toBe(1);
  });

  it("finds an experience that was lost, admitted twice, trained too seldom or dropped", () => {
    const admitted = indexOf("ExperiencesAdmitted", 3);
    expect(broken(without(admitted))).toContain("experience");
    expect(broken(insertedAfter(admitted, whole[admitted]))).toContain("experience");
    const prepared = indexOf("StepPrepared", 1);
    const shorter = whole.with(prepared, {
      ...(whole[prepared] as DurableRecord & { type: "StepPrepared" }),
      experienceIds: Array.from({ length: 15 }, (_, i) => `0/${i}/0`),
    });
    expect(broken(shorter)).toEqual(["experience"]);
    expect(
      broken([...whole, { type: "ExperiencesDropped", experienceIds: ["0/1/0"], reason: "stale" }]),
    ).toContain("experience");
    expect(
      broken([...whole, { type: "ExperiencesAbandoned", experienceIds: ["0/1/0"], reason: "poison" }]),
    ).toContain("experience");
  });

  it("finds a step that was lost, committed twice, skipped or not prepared", () => {
    const committed = indexOf("StepCommitted", 5);
    expect(broken(without(committed))).toContain("step");
    expect(broken(insertedAfter(committed, whole[committed]))).toContain("step");
    expect(broken(without(indexOf("StepPrepared", 5)))).toContain("step");
    const skipped = whole.with(committed, {
      ...(whole[committed] as DurableRecord & { type: "StepCommitted" }),
      type: "StepSkipped",
      reason: "nonfinite",
    });
    expect(broken(skipped)).toContain("step");
    expect(broken(whole.slice(0, -5))).toContain("step");
  });

  it("finds a policy version that was left out", () => {
    expect(broken(without(indexOf("VersionPublished", 1)))).toContain("version");
  });

  it("finds records that cannot follow each other", () => {
    expect(broken(insertedAfter(0, { type: "EpochStarted", epoch: 1 }))).toEqual(["journal"]);
  });

  it("names the first step and version that came out differently", () => {
    const twin = auditRecords(whole, plan);
    expect(compareJournals(twin, twin)).toEqual([]);
    const other = whole.map((record) =>
      record.type === "StepCommitted" && record.step >= 3
        ? { ...record, hash: "ffffffff" }
        : record.type === "VersionPublished" && record.policyVersion === 2
          ? { ...record, sha256: "f".repeat(64) }
          : record,
    );
    expect(compareJournals(twin, auditRecords(other, plan)).map(({ detail }) => detail)).toEqual([
      "ppo/3: ffffffff, without faults 00000000",
      `version 2: ${"f".repeat(64)}, without faults ${"0".repeat(64)}`,
    ]);
  });
});

describe("the audit of a journal of rounds", () => {
  const rounds: TrainingPlan = { ...plan, isReproducible: false, mayDrop: ["leftOut"] };
  /** The first iteration's commits, with what each of them leaves out. */
  const leavingOut = (...leftOut: (readonly string[])[]) =>
    whole.map((record) =>
      record.type === "StepCommitted" && leftOut[record.step - 1]?.length > 0
        ? { ...record, leftOut: leftOut[record.step - 1] }
        : record,
    );
  const id = "0/3/0";
  const other = "0/4/0";

  it("counts an experience as left out when no round took it in, and as trained when one did", () => {
    const facts = auditRecords(leavingOut([id, other], [id], [id], [id]), rounds);
    expect(facts.violations).toEqual([]);
    expect(facts).toMatchObject({ trained: 31, dropped: { leftOut: 1 } });
    expect(auditRecords(leavingOut([id], [id], [id], []), rounds)).toMatchObject({
      trained: 32,
      dropped: {},
    });
  });

  it("takes it for a loss where gradients are summed", () => {
    expect(auditRecords(leavingOut([], [id]), plan).violations.map(({ detail }) => detail)).toEqual([
      "1 left out of step 2 of ppo",
    ]);
  });

  it("finds one that is left out twice, or that its round does not list", () => {
    const details = (...leftOut: (readonly string[])[]) =>
      auditRecords(leavingOut(...leftOut), rounds).violations.map(({ detail }) => detail);
    expect(details([id, id])).toEqual(["step 1 of ppo leaves out an experience twice"]);
    expect(details(["1/3/0"])).toEqual(["1/3/0 was left out of step 1, which does not list it"]);
  });

  it("counts what became too old as dropped where policies may be behind, and as lost where they may not", () => {
    const late = "1/3/0";
    const dropped: DurableRecord = { type: "ExperiencesDropped", experienceIds: [late], reason: "stale" };
    const records = insertedAfter(indexOf("ExperiencesAdmitted", 31), dropped).map((record) =>
      record.type === "StepPrepared"
        ? { ...record, experienceIds: record.experienceIds.filter((one) => one !== late) }
        : record,
    );
    const asynchronous: TrainingPlan = { ...plan, isReproducible: false, mayDrop: ["stale"] };
    const facts = auditRecords(records, asynchronous);
    expect(facts.violations).toEqual([]);
    expect(facts).toMatchObject({ trained: 31, dropped: { stale: 1 } });
    expect(auditRecords(records, plan).violations.map(({ detail }) => detail)).toEqual([
      "1 lost for stale, first 1/3/0",
    ]);
  });

  it("counts the minibatches of a round, not the rounds", () => {
    const ids = Array.from({ length: 16 }, (_, i) => `0/${i}/0`);
    const places = ids.map((_, i) => i);
    const withInput = (minibatches: readonly (readonly number[])[], step: number) =>
      whole.map((record) =>
        record.type === "StepPrepared" && record.step === step
          ? { ...record, input: { firstOptimizerStep: 1, minibatches, input: null } }
          : record,
      );
    expect(auditRecords(withInput([places.slice(0, 8), places.slice(8)], 2), rounds).violations).toEqual([]);
    expect(auditRecords(withInput([places, [3]], 2), rounds).violations.map(({ detail }) => detail)).toEqual([
      "0/3/0 was in 5 minibatches, planned 4",
    ]);
    expect(
      auditRecords(withInput([places.slice(1)], 2), rounds).violations.map(({ detail }) => detail),
    ).toEqual(["0/0/0 was in 3 minibatches, planned 4"]);
  });
});
