/**
 * Judges a run from what it left behind: the records that became durable and the history its processes wrote. Shares
 * no code with the coordinator (types only): it recomputes the ledger, the steps and the parameters by itself.
 *
 *   I1 everything asked for is made        I2 admitted exactly once          I3 trained or dropped exactly once
 *   I4 steps contiguous, never lost        I5 one state on all learners      I6 one coordinator, live incarnations
 *   I7 faults do not change the result     I8 staleness bounded              I9 buffer bounded
 *   I10 the newest whole checkpoint is restored; payloads stay while a step may be repeated, which reads the same ones
 *   I11 nothing hangs or is silent         I12 refusals change nothing       C1 leases follow true time
 *   I13 trained in its own iteration       I15 no prompt is blamed for what killed its workers
 *   I14 learners that leave in turn take nothing along
 *   W2 policy versions only grow
 */
import { checkAuthority } from "./authority-check.js";
import { checkFaultFree } from "./fault-free-check.js";
import type { History } from "./history.js";
import type { Scenario } from "./scenario.js";
import { silenceLimitMs } from "./sim-config.js";
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
  checkLiveness(scenario, history, report);
  checkAuthority(history, report);
  checkDepartures(scenario, history, report);
  checkLedger(scenario, history, report);
  checkSteps(scenario, history, report);
  if (scenario.rounds !== null) checkRounds(scenario, history, report);
  checkPayloads(history, report);
  checkCheckpoints(history, report);
  checkFaultFree(scenario, history, report);
  return violations;
}

export type Report = (invariant: string, detail: string) => void;

/** I11: nothing stays silent for ever, and nobody is declared dead while talking. */
function checkLiveness(scenario: Scenario, history: History, report: Report): void {
  const { longestSilenceMs } = history;
  if (longestSilenceMs > silenceLimitMs(scenario))
    report("I11", `silent for ${longestSilenceMs} ms, at most ${silenceLimitMs(scenario)}`);
  for (const entry of history.entries) {
    if (entry.type === "stopped" && !isUndecidable(scenario, entry.code))
      report("I11", `run stopped with ${entry.code}: ${entry.diagnosis}`);
    if (entry.type === "expired" && entry.silentMs < 900) {
      report("C1", `${entry.workerId} lost its lease ${entry.silentMs} ms after a heartbeat`);
    }
  }
  const hasStopped = history.entries.some((entry) => entry.type === "stopped");
  if (!history.isFinished && !hasStopped)
    report("I11", `run neither finished nor stopped by ${history.endedAtMs} ms`);
}

/** Of two learners that hold different states nobody can tell which is right: the run must end, and say so. */
const isUndecidable = ({ learners, faults }: Scenario, code: string): boolean =>
  code === "DATA" && learners === 2 && faults.some(({ kind }) => kind === "corruptLearner");

/** I14: while learners only leave, each in its turn, somebody always holds the result of the last step. */
function checkDepartures({ faults, learners }: Scenario, history: History, report: Report): void {
  if (learners < 2 || faults.length === 0 || faults.some(({ kind }) => kind !== "rollLearners")) return;
  for (const entry of history.entries)
    if (entry.type === "started" && entry.isReplay) report("I14", `step ${entry.step} is computed again`);
}

/** I10: learners go on from the newest checkpoint that was not found damaged. */
function checkCheckpoints(history: History, report: Report): void {
  for (const entry of history.entries) {
    if (entry.type !== "restored") continue;
    const { checkpointId, durable, isDamaged } = entry;
    if (isDamaged) report("I10", `${checkpointId} was loaded although it is damaged`);
    const kept: string[] = [];
    for (const record of history.records.slice(0, durable)) {
      if (record.type === "CheckpointSaved") kept.push(record.checkpointId);
      if (record.type === "CheckpointQuarantined") kept.splice(kept.indexOf(record.checkpointId), 1);
    }
    if (kept.at(-1) !== checkpointId)
      report("I10", `${checkpointId} was loaded, the newest whole one is ${kept.at(-1)}`);
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
