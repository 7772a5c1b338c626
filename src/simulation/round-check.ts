/**
 * I3 and I5 of averaged parameters: every committed round is the average of what its learners say they trained, from one
 * common state, no row twice; and what its record leaves out is what none of them trained.
 */
import type { DurableRecord } from "../coordinator/core/index.js";
import type { Report } from "./checker.js";
import type { History, HistoryEntry } from "./history.js";
import type { Scenario } from "./scenario.js";
import { applyGradient, hashOf, INITIAL_PARAMETERS, localStep, reduceShards, weighted } from "./toy-model.js";

type Entry<T extends HistoryEntry["type"]> = Extract<HistoryEntry, { type: T }>;
type Record<T extends DurableRecord["type"]> = Extract<DurableRecord, { type: T }>;
type Averaging = Entry<"averaging">;

export function checkRounds(scenario: Scenario, history: History, report: Report): void {
  const ofType = <T extends HistoryEntry["type"]>(type: T): Entry<T>[] =>
    history.entries.filter((entry): entry is Entry<T> => entry.type === type);
  const started = new Map(ofType("started").map((entry) => [entry.generation, entry]));
  const averaging = new Map(ofType("averaging").map((entry) => [entry.generation, entry]));
  const told = new Map(ofType("committed").map((entry) => [entry.generation, entry]));
  const parts = new Map<number, Entry<"part">[]>();
  for (const part of ofType("part"))
    parts.set(part.generation, [...(parts.get(part.generation) ?? []), part]);
  const { prepared, committed, skipped } = recordsOf(history);
  /** Whatever learners have agreed to be after a step. */
  const statesAfter = new Map<number, Set<number>>([[0, new Set([INITIAL_PARAMETERS])]]);

  const statesBefore = (step: number): ReadonlySet<number> | undefined => {
    let before = step - 1;
    while (skipped.has(before)) before -= 1;
    return statesAfter.get(before);
  };

  const generations = [...new Set([...committed.keys(), ...told.keys()])].sort((a, b) => a - b);
  for (const generation of generations) {
    const average = averaging.get(generation);
    const record = committed.get(generation);
    const { step, hash } = record ?? told.get(generation)!;
    const manifest = prepared.get(step);
    if (average === undefined || manifest === undefined) {
      report("I5", `round ${step} was committed in generation ${generation}, which was never averaged`);
      continue;
    }
    const known = new Set(started.get(generation)?.incarnations);
    for (const { incarnation } of average.members)
      if (!known.has(incarnation))
        report("I5", `${incarnation} averages in round ${step}, which it did not start`);
    const own = partsOf(average, parts.get(generation) ?? []);
    const start = own.flat()[0]?.start;
    for (const part of own.flat())
      if (part.start !== start || !statesBefore(step)?.has(part.start))
        report(
          "I5",
          `${part.workerId} trains round ${step} from ${hashOf(part.start)}, which is no state after ${step - 1}`,
        );
    checkRows(own, step, report);
    const after = averageOf(scenario, history, average, own, manifest, start ?? 0);
    if (hashOf(after) !== hash)
      report("I5", `round ${step} committed ${hash}, its parts give ${hashOf(after)}`);
    if (!statesAfter.has(step)) statesAfter.set(step, new Set());
    statesAfter.get(step)!.add(after);
    checkWeights(scenario, average, own, report);
    if (record !== undefined) checkLeftOut(record, manifest, own, report);
  }
}

function recordsOf(history: History) {
  /** By step: repeated rounds have the manifest of the first. */
  const prepared = new Map<number, Record<"StepPrepared">>();
  const committed = new Map<number, Record<"StepCommitted">>();
  const skipped = new Set<number>();
  for (const record of history.records) {
    if (record.type === "StepPrepared") prepared.set(record.step, record);
    else if (record.type === "StepCommitted") committed.set(record.generation, record);
    else if (record.type === "StepSkipped") skipped.add(record.step);
  }
  return { prepared, committed, skipped };
}

/** Of everybody with a weight, in their order. */
const partsOf = ({ members }: Averaging, parts: readonly Entry<"part">[]): Entry<"part">[][] =>
  members
    .filter(({ weight }) => weight > 0)
    .map((member) => parts.filter(({ incarnation }) => incarnation === member.incarnation));

function checkRows(own: readonly Entry<"part">[][], step: number, report: Report): void {
  const seen = new Set<string>();
  for (const { index, experienceIds, workerId } of own.flat()) {
    for (const id of experienceIds) {
      const row = `${id} of minibatch ${index}`;
      if (seen.has(row)) report("I3", `${row} was trained twice in round ${step}, also by ${workerId}`);
      seen.add(row);
    }
  }
}

function averageOf(
  { shardCount }: Scenario,
  { contents }: History,
  { members }: Averaging,
  own: readonly Entry<"part">[][],
  { experienceIds, input }: Record<"StepPrepared">,
  start: number,
): number {
  const { minibatches } = input as unknown as { readonly minibatches: readonly (readonly number[])[] };
  const weights = members.filter(({ weight }) => weight > 0).map(({ weight }) => weight);
  const contributions = own.map((parts, i) => {
    let local = start;
    for (const part of parts) {
      const batch = minibatches[part.index].map((place) => contents.get(experienceIds[place]) ?? -1);
      local = localStep(local, part.optimizerStep, batch, part, shardCount);
    }
    return weighted(local, weights[i]);
  });
  return applyGradient(start, reduceShards(contributions));
}

/** As the rows they trained. */
function checkWeights(
  { shardCount }: Scenario,
  { step, members }: Averaging,
  own: readonly Entry<"part">[][],
  report: Report,
): void {
  const contributors = members.filter(({ weight }) => weight > 0);
  const shares = own.map((parts) => parts.reduce((sum, part) => sum + part.shardCount / shardCount, 0));
  const total = shares.reduce((sum, share) => sum + share, 0);
  contributors.forEach(({ workerId, weight }, i) => {
    if (Math.abs(weight - shares[i] / total) > 1e-9)
      report("I5", `${workerId} weighs ${weight} in round ${step}, it trained ${shares[i]} of ${total}`);
  });
}

function checkLeftOut(
  { step, leftOut = [] }: Record<"StepCommitted">,
  { experienceIds }: Record<"StepPrepared">,
  own: readonly Entry<"part">[][],
  report: Report,
): void {
  const trained = new Set(own.flat().flatMap((part) => part.experienceIds));
  const expected = experienceIds.filter((id) => !trained.has(id)).sort();
  const got = [...leftOut].sort();
  if (expected.join(" ") !== got.join(" "))
    report(
      "I3",
      `round ${step} left out ${expected.join(" ") || "nothing"}, its record says ${got.join(" ") || "nothing"}`,
    );
}
