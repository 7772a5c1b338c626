/**
 * What a finished run's journal says, read without the coordinator's own bookkeeping: every experience's fate, every
 * step, how often a step was begun.
 */
import { join } from "node:path";
import { applyRecord, emptyDurableState, type DurableRecord } from "../coordinator/core/index.js";
import { openLevelLog } from "../coordinator/journal/index.js";
import { dataError, describeError } from "../shared/errors.js";
import type { TrainingPlan } from "./training.js";
import type { Violation } from "./violation.js";

export interface JournalFacts {
  readonly records: number;
  /** Hash voted for every committed step: `ppo/12` -> hash. */
  readonly stepHashes: ReadonlyMap<string, string>;
  /** sha256 of the actor by policy version. */
  readonly versions: ReadonlyMap<number, string>;
  readonly coordinatorStarts: number;
  /** Uncommitted steps that were begun again: nothing that was done is lost by them. */
  readonly stepsBegunAgain: number;
  /** Committed steps computed again, because no process held their result any more. */
  readonly stepsReplayed: number;
  /** What became of the admitted experiences in the end. */
  readonly trained: number;
  readonly dropped: Readonly<Record<string, number>>;
  readonly violations: readonly Violation[];
}

/** Sequences have no gaps, from here on. */
const FIRST_SEQUENCE = 1;

type StepPrepared = Extract<DurableRecord, { type: "StepPrepared" }>;

interface Fate {
  admissions: number;
  /** Minibatches of committed steps that listed it. */
  listings: number;
  /** Committed steps that took it in: not those of which it was left out. */
  uses: number;
  /** Listed by a final use, or dropped: how often it came to an end. */
  ends: number;
  dropped: string | null;
}

/** Reads the journal of a run directory whose processes have ended. */
export async function auditJournal(runDir: string, plan: TrainingPlan): Promise<JournalFacts> {
  const log = await openLevelLog(join(runDir, "journal"));
  try {
    const records: DurableRecord[] = [];
    for await (const { sequence, record } of log.records()) {
      if (records.length === 0 && sequence !== FIRST_SEQUENCE)
        throw dataError(
          `the first ${sequence - FIRST_SEQUENCE} records were folded into a snapshot and cannot be audited; ` +
            "lower --iterations, so that a run has fewer records",
        );
      records.push(record);
    }
    return auditRecords(records, plan);
  } finally {
    await log.close();
  }
}

/** @param records all of them, from the first */
export function auditRecords(records: readonly DurableRecord[], plan: TrainingPlan): JournalFacts {
  const violations: Violation[] = [];
  const report = (invariant: Violation["invariant"], detail: string) =>
    void violations.push({ invariant, detail });
  const fates = new Map<string, Fate>();
  const stepHashes = new Map<string, string>();
  const versions = new Map<number, string>();
  let coordinatorStarts = 0;
  let prepared = 0;
  let finished = 0;
  let stepsReplayed = 0;
  let lastStep = { stage: "", step: 0 };
  let current: StepPrepared | undefined;

  for (const record of records) {
    switch (record.type) {
      case "EpochStarted":
        coordinatorStarts += 1;
        break;
      case "CollectionOpened":
        for (const id of record.tasks.flatMap((task) => task.experienceIds)) {
          if (fates.has(id)) report("experience", `${id} was asked for twice`);
          fates.set(id, { admissions: 0, listings: 0, uses: 0, ends: 0, dropped: null });
        }
        break;
      case "ExperiencesAdmitted":
        for (const id of record.experienceIds) {
          const fate = fates.get(id);
          if (fate === undefined) report("experience", `${id} was admitted unasked`);
          else fate.admissions += 1;
        }
        break;
      case "ExperiencesAbandoned":
      case "ExperiencesDropped": {
        const { type, reason, experienceIds } = record;
        const isPlanned = type === "ExperiencesDropped" && plan.mayDrop.includes(reason);
        if (!isPlanned)
          report("experience", `${experienceIds.length} lost for ${reason}, first ${experienceIds[0]}`);
        for (const id of experienceIds) end(fates.get(id), reason);
        break;
      }
      case "StepPrepared":
        prepared += 1;
        current = record;
        break;
      case "GenerationOpened":
        stepsReplayed += 1;
        break;
      case "StepSkipped":
        report("step", `step ${record.step} of ${record.stage} was skipped: ${record.reason}`);
        break;
      case "StepCommitted": {
        finished += 1;
        const { stage, step } = record;
        const expected = lastStep.stage === stage ? lastStep.step + 1 : 1;
        if (step !== expected)
          report("step", `step ${step} of ${stage} was committed where step ${expected} was due`);
        if (current?.step !== step || current.generation !== record.generation)
          report("step", `step ${step} of ${stage} was committed but not prepared`);
        lastStep = { stage, step };
        stepHashes.set(`${stage}/${step}`, record.hash);
        const leftOut = new Set(record.leftOut);
        if (leftOut.size !== (record.leftOut?.length ?? 0))
          report("experience", `step ${step} of ${stage} leaves out an experience twice`);
        if (leftOut.size > 0 && !plan.mayDrop.includes("leftOut"))
          report("experience", `${leftOut.size} left out of step ${step} of ${stage}`);
        const listings = current === undefined ? new Map<string, number>() : listingsOf(current);
        for (const id of leftOut)
          if (!listings.has(id))
            report("experience", `${id} was left out of step ${step}, which does not list it`);
        for (const [id, count] of listings) {
          const fate = fates.get(id);
          if (fate === undefined) report("experience", `${id} was trained but never asked for`);
          else {
            if (fate.ends > 0) report("experience", `${id} was used by step ${step} after its end`);
            fate.listings += count;
            if (!leftOut.has(id)) fate.uses += 1;
            if (current?.isFinalUse) end(fate, fate.uses === 0 ? "leftOut" : null);
          }
        }
        break;
      }
      case "VersionPublished":
        if (record.policyVersion !== versions.size)
          report("version", `version ${record.policyVersion} was published where ${versions.size} was due`);
        versions.set(record.policyVersion, record.sha256);
        break;
      default:
        break;
    }
  }
  const { trained, dropped } = checkFates(fates, plan, report);
  const ppoSteps = plan.iterations * plan.stepsPerIteration;
  const isShort = !stepHashes.has(`ppo/${ppoSteps}`);
  if ((isShort && dropped.stale === undefined) || stepHashes.has(`ppo/${ppoSteps + 1}`))
    report("step", `ppo was to end with step ${ppoSteps}, the last one committed is ${lastStep.step}`);
  if (versions.size !== plan.iterations + 1)
    report("version", `${plan.iterations + 1} policy versions were due, ${versions.size} were published`);
  const folding = foldFailure(records, { trained, dropped });
  if (folding !== undefined) report("journal", folding);
  return {
    records: records.length,
    stepHashes,
    versions,
    coordinatorStarts,
    stepsBegunAgain: prepared - finished,
    stepsReplayed,
    trained,
    dropped,
    violations,
  };
}

function end(fate: Fate | undefined, dropped: string | null): void {
  if (fate === undefined) return;
  fate.ends += 1;
  fate.dropped = dropped;
}

/** How many minibatches of the step list each of its experiences: 1, or as many as its round says. */
function listingsOf({ experienceIds, input }: StepPrepared): Map<string, number> {
  const round = input as { readonly minibatches?: readonly (readonly number[])[] } | null;
  if (round?.minibatches === undefined) return new Map(experienceIds.map((id) => [id, 1]));
  const listings = new Map(experienceIds.map((id) => [id, 0]));
  for (const place of round.minibatches.flat())
    listings.set(experienceIds[place], (listings.get(experienceIds[place]) ?? 0) + 1);
  return listings;
}

/** Each was admitted once, used as often as planned, and came to one end. */
function checkFates(
  fates: ReadonlyMap<string, Fate>,
  plan: TrainingPlan,
  report: (invariant: Violation["invariant"], detail: string) => void,
): Pick<JournalFacts, "trained" | "dropped"> {
  const expected = plan.iterations * plan.experiencesPerIteration;
  if (fates.size !== expected)
    report("experience", `${expected} were to be made, ${fates.size} were asked for`);
  let trained = 0;
  const dropped: Record<string, number> = {};
  for (const [id, fate] of fates) {
    if (fate.admissions !== 1) report("experience", `${id} was admitted ${fate.admissions} times`);
    if (fate.ends !== 1) report("experience", `${id} came to ${fate.ends} ends`);
    // Dropped before a step listed it: no pass was to take it.
    const isUnlisted = fate.dropped !== null && fate.dropped !== "leftOut" && fate.listings === 0;
    if (fate.listings !== plan.usesPerExperience && !isUnlisted)
      report("experience", `${id} was in ${fate.listings} minibatches, planned ${plan.usesPerExperience}`);
    if (fate.dropped === null) trained += 1;
    else dropped[fate.dropped] = (dropped[fate.dropped] ?? 0) + 1;
  }
  return { trained, dropped };
}

/** Why the records are no history of a run, if they are not, or what the coordinator makes of them differently. */
function foldFailure(
  records: readonly DurableRecord[],
  { trained, dropped }: Pick<JournalFacts, "trained" | "dropped">,
): string | undefined {
  const state = emptyDurableState();
  try {
    for (const record of records) applyRecord(state, record);
  } catch (error) {
    return describeError(error);
  }
  const { counts } = state;
  if (counts.open > 0 || counts.buffered > 0 || counts.bufferedBytes > 0)
    return `experiences are left: ${counts.open} open, ${counts.buffered} buffered`;
  const total = (by: Readonly<Record<string, number>>) =>
    Object.values(by).reduce((sum, count) => sum + count, 0);
  const lost = total(counts.dropped) + total(counts.abandoned);
  return counts.trained === trained && lost === total(dropped)
    ? undefined
    : `the records tell of ${trained} trained and ${total(dropped)} dropped, the coordinator counts ${counts.trained} and ${lost}`;
}

/** Steps and versions that came out differently than in the twin, first difference only. */
export function compareJournals(twin: JournalFacts, facts: JournalFacts): Violation[] {
  const violations: Violation[] = [];
  for (const [step, hash] of twin.stepHashes) {
    if (facts.stepHashes.get(step) === hash) continue;
    const got = facts.stepHashes.get(step) ?? "nothing";
    violations.push({ invariant: "step", detail: `${step}: ${got}, without faults ${hash}` });
    break;
  }
  for (const [version, sha256] of twin.versions) {
    if (facts.versions.get(version) === sha256) continue;
    const got = facts.versions.get(version) ?? "nothing";
    violations.push({ invariant: "version", detail: `version ${version}: ${got}, without faults ${sha256}` });
    break;
  }
  return violations;
}
