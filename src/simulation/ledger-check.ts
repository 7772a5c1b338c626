/** I1, I2, I3, I8, I9, I12, I13, I15: every experience, from the durable records alone. */
import type { Report } from "./checker.js";
import type { DurableRecord } from "../coordinator/core/index.js";
import type { History, HistoryEntry } from "./history.js";
import { lastIteration, type Scenario } from "./scenario.js";

interface Fate {
  readonly iteration: number;
  admissions: number;
  policyVersion: number;
  bytes: number;
  /** Minibatches of finished steps, committed or skipped, that listed it. */
  listings: number;
  /** Committed steps that took it in: not those of which it was left out. */
  uses: number;
  isFinal: boolean;
  dropped: number;
  abandoned: number;
}

export function checkLedger(scenario: Scenario, history: History, report: Report): void {
  const fates = new Map<string, Fate>();
  const firstAdmitted = new Map<string, number>();
  let policyVersion = -1;
  let committedIteration = -1;
  let prepared: {
    readonly step: number;
    readonly ids: readonly string[];
    readonly listings: readonly (readonly number[])[];
    readonly isFinalUse: boolean;
  } | null = null;
  let buffered = 0;
  let bufferedBytes = 0;
  const fateOf = (id: string, what: string): Fate | undefined => {
    const fate = fates.get(id);
    if (fate === undefined) report("I3", `${id} ${what} but was never asked for`);
    return fate;
  };
  const leave = (fate: Fate): void => {
    buffered -= 1;
    bufferedBytes -= fate.bytes;
  };
  history.records.forEach((record, index) => {
    switch (record.type) {
      case "CollectionOpened":
        for (const id of record.tasks.flatMap((task) => task.experienceIds)) {
          if (fates.has(id)) report("I2", `${id} asked for twice`);
          fates.set(id, {
            iteration: record.iteration,
            admissions: 0,
            policyVersion: -1,
            bytes: 0,
            listings: 0,
            uses: 0,
            isFinal: false,
            dropped: 0,
            abandoned: 0,
          });
        }
        return;
      case "ExperiencesAdmitted": {
        record.experienceIds.forEach((id, i) => {
          const fate = fateOf(id, "admitted");
          if (fate === undefined) return;
          fate.admissions += 1;
          if (fate.admissions > 1) report("I2", `${id} admitted ${fate.admissions} times`);
          if (fate.abandoned > 0) report("I2", `${id} admitted after it was given up`);
          fate.policyVersion = record.policyVersion;
          fate.bytes = record.bytes[i];
          buffered += 1;
          bufferedBytes += fate.bytes;
          if (!firstAdmitted.has(id)) firstAdmitted.set(id, index);
        });
        const capacity = (scenario.maxStalenessVersions + 1) * scenario.prompts;
        if (buffered > capacity) report("I9", `${buffered} experiences buffered, at most ${capacity}`);
        if (bufferedBytes > scenario.capacityBytes)
          report("I9", `${bufferedBytes} bytes buffered, at most ${scenario.capacityBytes}`);
        return;
      }
      case "ExperiencesAbandoned":
        for (const id of record.experienceIds) {
          const fate = fateOf(id, "given up");
          if (fate === undefined) continue;
          fate.abandoned += 1;
          if (record.reason === "poison" && !scenario.poisonIds.includes(id))
            report("I15", `${id} given up as poison, and nothing is wrong with it`);
          if (fate.admissions > 0) report("I3", `${id} given up after it was admitted`);
        }
        return;
      case "ExperiencesDropped":
        for (const id of record.experienceIds) {
          const fate = fateOf(id, "dropped");
          if (fate === undefined) continue;
          fate.dropped += 1;
          leave(fate);
        }
        return;
      case "IterationCommitted":
        committedIteration = record.iteration;
        return;
      case "VersionPublished":
        if (record.policyVersion <= policyVersion)
          report("W2", `version ${record.policyVersion} after ${policyVersion}`);
        policyVersion = record.policyVersion;
        return;
      case "StepPrepared":
        prepared = {
          step: record.step,
          ids: record.experienceIds,
          listings: minibatchesOf(record),
          isFinalUse: record.isFinalUse,
        };
        for (const id of record.experienceIds) {
          if (fates.get(id)?.iteration !== committedIteration + 1)
            report("I13", `${id} trained in iteration ${committedIteration + 1}`);
          const staleness = policyVersion - (fateOf(id, "prepared")?.policyVersion ?? policyVersion);
          if (staleness > scenario.maxStalenessVersions)
            report("I8", `${id} trained ${staleness} versions late`);
        }
        return;
      case "StepCommitted":
      case "StepSkipped": {
        const leftOut = new Set(record.type === "StepCommitted" ? record.leftOut : []);
        for (const place of prepared?.listings.flat() ?? []) {
          const fate = fates.get(prepared!.ids[place]);
          if (fate !== undefined) fate.listings += 1;
        }
        for (const id of prepared?.ids ?? []) {
          const fate = fateOf(id, "used");
          if (fate === undefined) continue;
          if (record.type === "StepCommitted" && !leftOut.has(id)) fate.uses += 1;
          if (fate.isFinal || fate.dropped > 0 || fate.admissions === 0)
            report("I3", `${id} used by step ${record.step} after its end`);
          if (!prepared?.isFinalUse) continue;
          fate.isFinal = true;
          leave(fate);
        }
        return;
      }
      default:
    }
  });
  checkFates(scenario, history, fates, report);
  checkAcks(history, firstAdmitted, report);
  checkCounts(history, fates, report);
}

/** Every id of a finished run ended in exactly one way, and a trained one was used once per epoch. */
function checkFates(
  scenario: Scenario,
  history: History,
  fates: ReadonlyMap<string, Fate>,
  report: Report,
): void {
  if (!history.isFinished) return;
  const trained = lastIteration(scenario) * scenario.prompts;
  if (scenario.endsEarly ? fates.size < trained : fates.size !== trained)
    report("I1", `${fates.size} experiences asked for`);
  for (const [id, fate] of fates) {
    const ends = (fate.isFinal ? 1 : 0) + fate.dropped + fate.abandoned;
    if (ends !== 1) report("I3", `${id} ended ${ends} times: ${JSON.stringify(fate)}`);
    if (fate.isFinal && fate.listings !== scenario.ppoEpochs) {
      report("I3", `${id} was in ${fate.listings} minibatches, not ${scenario.ppoEpochs}`);
    }
    if (fate.abandoned > 0 && fate.uses > 0) report("I3", `${id} given up and trained`);
  }
}

/** Places in the step's list: of every minibatch of a round, or of the only one. */
function minibatchesOf({
  experienceIds,
  input,
}: Extract<DurableRecord, { type: "StepPrepared" }>): readonly (readonly number[])[] {
  const round = input as { readonly minibatches?: readonly (readonly number[])[] } | null;
  return round?.minibatches ?? [experienceIds.map((_, i) => i)];
}

/** An answer is only as good as the journal behind it; a refusal changes nothing. */
function checkAcks(history: History, firstAdmitted: ReadonlyMap<string, number>, report: Report): void {
  const admitted = new Set<string>();
  const evaluated = new Set<string>();
  for (const entry of history.entries) {
    if (entry.type === "acked" && entry.outcome === "admitted") {
      if (admitted.has(entry.experienceId))
        report("I2", `${entry.experienceId} acknowledged as admitted twice`);
      admitted.add(entry.experienceId);
      const index = firstAdmitted.get(entry.experienceId);
      if (index === undefined || index >= entry.durable) {
        report("I2", `${entry.experienceId} acknowledged before (or without) its record`);
      }
    }
    if (entry.type === "evaluated") {
      const answer = `${entry.owner} ${entry.taskId} ${entry.attempt}`;
      if (evaluated.has(answer)) report("I2", `attempt ${entry.attempt} of ${entry.taskId} accepted twice`);
      evaluated.add(answer);
    }
    if (entry.type !== "judged") continue;
    const mayRecord =
      entry.outcome === "admitted" || entry.outcome === "nonfinite" || entry.outcome === "overCapacity";
    if (!mayRecord && entry.records > 0)
      report("I12", `${entry.outcome} ${entry.experienceId} wrote ${entry.records} records`);
  }
}

/** The product's own books balance at all times. */
function checkCounts(history: History, fates: ReadonlyMap<string, Fate>, report: Report): void {
  let last: Extract<HistoryEntry, { type: "ledger" }> | undefined;
  for (const entry of history.entries) {
    if (entry.type !== "ledger") continue;
    // One that was replaced may have decided what it was not allowed to write.
    if (entry.owner >= (last?.owner ?? 0)) last = entry;
    if (entry.admitted !== entry.trained + entry.dropped + entry.buffered)
      report("I3", `ledger does not balance: ${JSON.stringify(entry)}`);
  }
  if (!history.isFinished || last === undefined) return;
  const trained = [...fates.values()].filter(({ isFinal, uses }) => isFinal && uses > 0).length;
  if (last.trained !== trained)
    report("I3", `${trained} experiences were trained, ${last.trained} are counted`);
}
