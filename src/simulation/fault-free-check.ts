/**
 * I7: a synchronous run ends as one in which nothing ever went wrong. What its data alone decides, which prompts are given
 * up and which steps are skipped, is the same in both; what depends on who came first, an overfull buffer, is promised
 * to nobody, and rounds of averaged parameters may come out differently when they are done again.
 */
import type { Report } from "./checker.js";
import type { History } from "./history.js";
import { lastIteration, type Scenario } from "./scenario.js";
import { EXPERIENCE_BYTES } from "./sim-rollout.js";
import {
  applyGradient,
  hashOf,
  INITIAL_PARAMETERS,
  reduceShards,
  sampleContent,
  shardGradient,
} from "./toy-model.js";

const isPromised = ({ rounds, maxStalenessVersions, capacityBytes, prompts }: Scenario): boolean =>
  rounds === null && maxStalenessVersions === 0 && capacityBytes >= prompts * EXPERIENCE_BYTES;

export function checkFaultFree(scenario: Scenario, history: History, report: Report): void {
  if (!isPromised(scenario)) return;
  const { hashes, policies } = faultFree(scenario);
  for (const record of history.records) {
    if (record.type !== "StepCommitted" && record.type !== "StepSkipped") continue;
    const got = record.type === "StepCommitted" ? record.hash : "skipped";
    const expected = hashes[record.step - 1] ?? "none";
    if (got !== expected) report("I7", `step ${record.step} ended as ${got}, fault-free ${expected}`);
  }
  for (const entry of history.entries)
    if (entry.type === "kept" && typeof entry.as === "number" && entry.parameters !== policies[entry.as])
      report(
        "I7",
        `policy ${entry.as} is ${hashOf(entry.parameters)}, fault-free ${hashOf(policies[entry.as])}`,
      );
  if (!history.isFinished) return;
  const final = policies.at(-1)!;
  if (history.finalParameters !== final)
    report("I7", `final parameters ${hashOf(history.finalParameters ?? 0)}, fault-free ${hashOf(final)}`);
}

/** Digests after every step ("skipped" for one that is), and the policy after every iteration, from the one before the first. */
function faultFree(scenario: Scenario): { readonly hashes: string[]; readonly policies: number[] } {
  const { prompts, ppoEpochs, minibatchSize, shardCount, nonFiniteSteps } = scenario;
  const lost = new Set([...scenario.poisonIds, ...scenario.nonFiniteIds]);
  const hashes: string[] = [];
  const policies = [INITIAL_PARAMETERS];
  for (let iteration = 0; iteration < lastIteration(scenario); iteration++) {
    let parameters = policies[iteration];
    const contents = Array.from({ length: prompts }, (_, prompt) => `${iteration}/${prompt}/0`)
      .filter((id) => !lost.has(id))
      .map((id) => sampleContent(id, policies[iteration]));
    for (let epoch = 0; epoch < ppoEpochs; epoch++) {
      for (let first = 0; first < contents.length; first += minibatchSize) {
        const batch = contents.slice(first, first + minibatchSize);
        const step = hashes.length + 1;
        const before = parameters;
        const gradients = Array.from({ length: shardCount }, (_, shard) =>
          shardGradient(before, step, batch, shard, shardCount),
        );
        const isSkipped = nonFiniteSteps.includes(step);
        if (!isSkipped) parameters = applyGradient(before, reduceShards(gradients));
        hashes.push(isSkipped ? "skipped" : hashOf(parameters));
      }
    }
    policies.push(parameters);
  }
  return { hashes, policies };
}
