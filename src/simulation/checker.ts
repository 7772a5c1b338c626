/**
 * Judges a run from what it left behind: the records that became durable and the history its processes wrote. Shares
 * no code with the coordinator (types only): it recomputes the ledger, the steps and the parameters by itself.
 *
 *   I1 everything asked for is made        I2 admitted exactly once          I3 trained or dropped exactly once
 *   I4 steps contiguous, never lost        I5 one state on all learners      I6 only live incarnations act
 *   I7 faults do not change the result     I8 staleness bounded              I9 buffer bounded
 *   I10 payloads stay while a step may be repeated, and a repeated step reads the same ones
 *   I11 nothing hangs                      I12 refusals change nothing       C1 leases follow true time
 *   I13 trained in its own iteration       I15 no prompt is blamed for what killed its workers
 *   I14 learners that leave in turn take nothing along
 *   W2 policy versions only grow
 */
import type { History } from "./history.js";
import type { Scenario } from "./scenario.js";
import {
  applyGradient,
  hashOf,
  INITIAL_PARAMETERS,
  reduceShards,
  sampleContent,
  shardGradient,
} from "./toy-model.js";
import { checkLedger } from "./ledger-check.js";
import { checkRounds } from "./round-check.js";
import { checkSteps } from "./step-check.js";

export interface Violation {
  readonly invariant: string;
  readonly detail: string;
}

export function checkRun(scenario: Scenario, history: History): Violation[] {
  const violations: Violation[] = [];
  const report = (invariant: string, detail: string): void => {
    if (violations.length < 20) violations.push({ invariant, detail });
  };
  checkLiveness(history, report);
  checkMembership(history, report);
  checkDepartures(scenario, history, report);
  const ledger = checkLedger(scenario, history, report);
  checkSteps(scenario, history, report);
  if (scenario.rounds !== null) checkRounds(scenario, history, report);
  checkPayloads(history, report);
  if (
    history.isFinished &&
    scenario.rounds === null &&
    scenario.maxStalenessVersions === 0 &&
    !ledger.hasLosses &&
    scenario.nonFiniteSteps.length === 0
  ) {
    checkFaultFree(scenario, history, report);
  }
  return violations;
}

export type Report = (invariant: string, detail: string) => void;

/** I11: nothing stays silent for ever, and nobody is declared dead while talking. */
function checkLiveness(history: History, report: Report): void {
  for (const entry of history.entries) {
    if (entry.type === "stopped") report("I11", `run stopped with ${entry.code}: ${entry.diagnosis}`);
    if (entry.type === "expired" && entry.silentMs < 900) {
      report("C1", `${entry.workerId} lost its lease ${entry.silentMs} ms after a heartbeat`);
    }
  }
  const hasStopped = history.entries.some((entry) => entry.type === "stopped");
  if (!history.isFinished && !hasStopped)
    report("I11", `run neither finished nor stopped by ${history.endedAtMs} ms`);
}

/** I14: while learners only leave, each in its turn, somebody always holds the result of the last step. */
function checkDepartures({ faults, learners }: Scenario, history: History, report: Report): void {
  if (learners < 2 || faults.length === 0 || faults.some(({ kind }) => kind !== "rollLearners")) return;
  for (const entry of history.entries)
    if (entry.type === "started" && entry.isReplay) report("I14", `step ${entry.step} is computed again`);
}

/** I6: whoever changes something is the last process of its name that was accepted and not removed since. */
function checkMembership(history: History, report: Report): void {
  const live = new Map<string, number>();
  const removed = new Set<number>();
  let greatest = -1;
  for (const entry of history.entries) {
    if (entry.type === "accepted") {
      if (entry.incarnation > greatest) greatest = entry.incarnation;
      else if (live.get(entry.workerId) !== entry.incarnation)
        report("I6", `incarnation ${entry.incarnation} given twice`);
      live.set(entry.workerId, entry.incarnation);
    } else if (entry.type === "removed") {
      removed.add(entry.incarnation);
    } else if (entry.type === "judged" && entry.outcome !== "fenced") {
      if (live.get(entry.workerId) === entry.incarnation && !removed.has(entry.incarnation)) continue;
      report(
        "I6",
        `${entry.experienceId} ${entry.outcome} from ${entry.workerId}, incarnation ${entry.incarnation}, which is over`,
      );
    }
  }
}

/** I10: nobody reads in vain, and whoever does a step again starts from the same collection. */
function checkPayloads(history: History, report: Report): void {
  const collections = new Map<number, string>();
  for (const entry of history.entries) {
    if (entry.type === "unreadable") report("I10", `${entry.experienceId} was deleted although it is needed`);
    if (entry.type !== "started") continue;
    const read = entry.collections.join("; ");
    const before = collections.get(entry.step) ?? read;
    if (before !== read) report("I10", `step ${entry.step} reads ${read}, before it was ${before}`);
    collections.set(entry.step, read);
  }
}

/** I7: a synchronous run that lost nothing ends with the parameters of one in which nothing ever went wrong. */
function checkFaultFree(scenario: Scenario, history: History, report: Report): void {
  const { iterations, prompts, ppoEpochs, minibatchSize, shardCount } = scenario;
  let parameters = INITIAL_PARAMETERS;
  let step = 0;
  for (let iteration = 0; iteration < iterations; iteration++) {
    const policy = parameters;
    const contents = Array.from({ length: prompts }, (_, prompt) =>
      sampleContent(`${iteration}/${prompt}/0`, policy),
    );
    for (let epoch = 0; epoch < ppoEpochs; epoch++) {
      for (let first = 0; first < prompts; first += minibatchSize) {
        const batch = contents.slice(first, first + minibatchSize);
        const before = parameters;
        step += 1;
        const gradients = Array.from({ length: shardCount }, (_, shard) =>
          shardGradient(before, step, batch, shard, shardCount),
        );
        parameters = applyGradient(before, reduceShards(gradients));
      }
    }
  }
  if (history.finalParameters !== parameters) {
    report(
      "I7",
      `final parameters ${hashOf(history.finalParameters ?? 0)}, fault-free ${hashOf(parameters)}`,
    );
  }
}
