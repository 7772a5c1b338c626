/**
 * What a finished run's journal says, read without the coordinator's own bookkeeping: every experience's fate, every
 * step, how often a step was begun.
 */
import { join } from "node:path";
import { applyRecord, emptyDurableState, type DurableRecord } from "../coordinator/core/index.js";
import { openLevelLog } from "../coordinator/journal/index.js";
import { describeError } from "../shared/errors.js";
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
  readonly violations: readonly Violation[];
}

interface Fate {
  admissions: number;
  uses: number;
}

/** Reads the journal of a run directory whose processes have ended. */
export async function auditJournal(runDir: string, plan: TrainingPlan): Promise<JournalFacts> {
  const log = await openLevelLog(join(runDir, "journal"));
  try {
    const records: DurableRecord[] = [];
    for await (const { record } of log.records()) records.push(record);
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
  let current: Extract<DurableRecord, { type: "StepPrepared" }> | undefined;

  for (const record of records) {
    switch (record.type) {
      case "EpochStarted":
        coordinatorStarts += 1;
        break;
      case "CollectionOpened":
        for (const id of record.tasks.flatMap((task) => task.experienceIds)) {
          if (fates.has(id)) report("experience", `${id} was asked for twice`);
          fates.set(id, { admissions: 0, uses: 0 });
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
      case "ExperiencesDropped":
        report(
          "experience",
          `${record.experienceIds.length} lost for ${record.reason}, first ${record.experienceIds[0]}`,
        );
        break;
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
        for (const id of current?.experienceIds ?? []) {
          const fate = fates.get(id);
          if (fate === undefined) report("experience", `${id} was trained but never asked for`);
          else fate.uses += 1;
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
  checkFates(fates, plan, report);
  const ppoSteps = plan.iterations * plan.stepsPerIteration;
  if (!stepHashes.has(`ppo/${ppoSteps}`) || stepHashes.has(`ppo/${ppoSteps + 1}`))
    report("step", `ppo was to end with step ${ppoSteps}, the last one committed is ${lastStep.step}`);
  if (versions.size !== plan.iterations + 1)
    report("version", `${plan.iterations + 1} policy versions were due, ${versions.size} were published`);
  const folding = foldFailure(records);
  if (folding !== undefined) report("journal", folding);
  return {
    records: records.length,
    stepHashes,
    versions,
    coordinatorStarts,
    stepsBegunAgain: prepared - finished,
    stepsReplayed,
    violations,
  };
}

function checkFates(
  fates: ReadonlyMap<string, Fate>,
  plan: TrainingPlan,
  report: (invariant: Violation["invariant"], detail: string) => void,
): void {
  const expected = plan.iterations * plan.experiencesPerIteration;
  if (fates.size !== expected)
    report("experience", `${expected} were to be made, ${fates.size} were asked for`);
  for (const [id, { admissions, uses }] of fates) {
    if (admissions !== 1) report("experience", `${id} was admitted ${admissions} times`);
    if (uses !== plan.usesPerExperience)
      report("experience", `${id} was trained in ${uses} steps, planned ${plan.usesPerExperience}`);
  }
}

/** Why the records are no history of a run, if they are not. */
function foldFailure(records: readonly DurableRecord[]): string | undefined {
  const state = emptyDurableState();
  try {
    for (const record of records) applyRecord(state, record);
  } catch (error) {
    return describeError(error);
  }
  const { counts } = state;
  const isEmpty = counts.open === 0 && counts.buffered === 0 && counts.bufferedBytes === 0;
  return isEmpty ? undefined : `experiences are left: ${counts.open} open, ${counts.buffered} buffered`;
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
