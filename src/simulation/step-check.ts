/** I4 and I5: which steps were committed, on whose votes, and what every learner made of them. */
import type { Report } from "./checker.js";
import type { History, HistoryEntry } from "./history.js";
import type { Scenario } from "./scenario.js";
import { applyGradient, hashOf, INITIAL_PARAMETERS, reduceShards, shardGradient } from "./toy-model.js";

type Voted = Extract<HistoryEntry, { type: "voted" }>;

export function checkSteps(scenario: Scenario, history: History, report: Report): void {
  const expected = recompute(scenario, history, report);
  const started = new Map<number, Extract<HistoryEntry, { type: "started" }>>();
  const votes = new Map<number, Map<number, Voted>>();
  const committed = new Map<number, string>();
  for (const entry of history.entries) {
    switch (entry.type) {
      case "started":
        if (started.has(entry.generation)) report("I5", `generation ${entry.generation} started twice`);
        started.set(entry.generation, entry);
        break;
      case "averaging": {
        const incarnations = entry.members.map(({ incarnation }) => incarnation);
        started.set(entry.generation, { ...started.get(entry.generation)!, incarnations });
        break;
      }
      case "voted": {
        const ofGeneration = votes.get(entry.generation) ?? new Map<number, Voted>();
        votes.set(entry.generation, ofGeneration.set(entry.incarnation, entry));
        break;
      }
      case "committed": {
        const start = started.get(entry.generation);
        if (start === undefined || start.step !== entry.step)
          report("I5", `generation ${entry.generation} committed another step`);
        for (const incarnation of start?.incarnations ?? []) {
          const vote = votes.get(entry.generation)?.get(incarnation);
          if (vote === undefined || vote.step !== entry.step || !vote.isFinite || vote.hash !== entry.hash) {
            report(
              "I5",
              `step ${entry.step} committed in generation ${entry.generation} without the vote of ${incarnation}`,
            );
          }
        }
        committed.set(entry.generation, entry.hash);
        if ((expected.recordAt.get(entry.step) ?? Infinity) >= entry.durable) {
          report("I4", `commit of step ${entry.step} told before (or without) its record`);
        }
        break;
      }
      case "kept": {
        // Nothing becomes a policy or a checkpoint that is not what the learners voted for.
        if (scenario.rounds !== null) break;
        const hash = expected.hashAfter(entry.step);
        if (hash !== hashOf(entry.parameters))
          report(
            "I5",
            `${entry.as} holds ${hashOf(entry.parameters)}, after step ${entry.step} it is ${hash}`,
          );
        break;
      }
      case "applied": {
        // A round is checked by what its learners trained (round-check.ts), and may be repeated differently.
        const isRound = scenario.rounds !== null;
        const hash = isRound ? committed.get(entry.generation) : expected.hashes.get(entry.step);
        if (hash !== entry.hash)
          report(
            "I5",
            `${entry.workerId} stands at ${entry.hash} after step ${entry.step}, expected ${hash}`,
          );
        break;
      }
      default:
    }
  }
}

/** The parameters after every durable step, from the manifests and the payloads alone. */
function recompute(scenario: Scenario, history: History, report: Report) {
  const hashes = new Map<number, string>();
  const recordAt = new Map<number, number>();
  let parameters = INITIAL_PARAMETERS;
  let finished = 0;
  let generation = 0;
  let ids: readonly string[] = [];
  history.records.forEach((record, index) => {
    switch (record.type) {
      case "StepPrepared":
      case "GenerationOpened":
        if (record.generation <= generation)
          report("I5", `generation ${record.generation} after ${generation}`);
        generation = record.generation;
        if (record.type === "StepPrepared") ids = record.experienceIds;
        return;
      case "StepCommitted":
      case "StepSkipped": {
        if (record.step !== finished + 1) report("I4", `step ${record.step} finished after step ${finished}`);
        finished = record.step;
        if (record.type === "StepSkipped") return;
        recordAt.set(record.step, index);
        if (scenario.rounds !== null) return;
        const contents = ids.map((id) => history.contents.get(id) ?? -1);
        const before = parameters;
        const gradients = Array.from({ length: scenario.shardCount }, (_, shard) =>
          shardGradient(before, record.step, contents, shard, scenario.shardCount),
        );
        parameters = applyGradient(before, reduceShards(gradients));
        hashes.set(record.step, hashOf(parameters));
        if (record.hash !== hashOf(parameters)) {
          report(
            "I5",
            `step ${record.step} committed ${record.hash}, its manifest gives ${hashOf(parameters)}`,
          );
        }
        return;
      }
      default:
    }
  });
  const hashAfter = (step: number): string | undefined => {
    let last = step;
    while (last > 0 && !hashes.has(last)) last -= 1; // skipped
    return last === 0 ? hashOf(INITIAL_PARAMETERS) : hashes.get(last);
  };
  return { hashes, hashAfter, recordAt };
}
