/** What a campaign showed, as numbers (`--json`) and as one page. */
import { availableParallelism, cpus, loadavg } from "node:os";
import type { Campaign } from "./campaign.js";
import type { InjectedFault } from "./faults.js";
import { joinTimes, quantile, RECOVERY_NAMES, type RecoveryTimes } from "./recovery.js";
import type { ReplayTime } from "./replay-probe.js";
import type { Violation } from "./violation.js";

export interface ChaosReport {
  readonly machine: { readonly cores: number; readonly cpu: string; readonly loadAverage: number };
  readonly seed: number;
  readonly rollouts: number;
  readonly learners: number;
  readonly iterationsPerRun: number;
  /** Settings of the training beyond its own. */
  readonly sets: readonly string[];
  readonly runs: number;
  readonly faults: readonly FaultRow[];
  /** Uncommitted steps that were begun again: at most one per fault. */
  readonly stepsBegunAgain: number;
  /** Committed steps that were computed again: none while a learner that holds them lives. */
  readonly stepsReplayed: number;
  /** Learners that ended by themselves: on a starved machine a coordinator may take longer to start than they wait. */
  readonly learnersGivenUp: number;
  readonly recovery: Readonly<Record<keyof RecoveryTimes, RecoveryFigure>>;
  readonly replay: ReplayTime;
  readonly violations: readonly (Violation & { readonly run: number })[];
  readonly twinSeconds: number;
  readonly secondsPerRun: number;
  /** Experiences per second under faults ÷ without. */
  readonly throughputKept: number;
  /** null: there is nothing to compare, see `finalStateText`. */
  readonly isFinalHashEqual: boolean | null;
  /** Of all runs under faults. */
  readonly experiences: { readonly trained: number; readonly dropped: Readonly<Record<string, number>> };
  readonly finalHash: string;
}

export interface FaultRow {
  readonly number: number;
  readonly run: number;
  readonly what: string;
  readonly victim: string;
  readonly phase: string;
  readonly at: string;
}

export interface RecoveryFigure {
  readonly count: number;
  readonly p50Ms: number | undefined;
  readonly p95Ms: number | undefined;
  readonly maxMs: number | undefined;
  readonly limitMs: number | undefined;
}

const REGROUP_ALLOWANCE_MS = 2_000;
/** 10,000 records: more than a journal holds before it is folded into a snapshot. */
export const REPLAYED_RECORDS = 10_000;
const REPLAY_LIMIT_MS = 3_000;

/** What is promised (docs/operations.md, Recovery); the coordinator's own start has no limit. */
const limitsMs = (leaseTtlMs: number): Readonly<Record<keyof RecoveryTimes, number | undefined>> => ({
  rolloutNoticed: 1_000,
  // Its second half, a worker with room, is the fleet's to have.
  rolloutReleased: undefined,
  learnersRegrouped: leaseTtlMs + REGROUP_ALLOWANCE_MS,
  coordinatorBack: undefined,
  workersAttached: 2_000,
  strangersBack: undefined,
});

export function reportOf(campaign: Campaign, replay: ReplayTime): ChaosReport {
  const { options, plan, twin, runs, violations } = campaign;
  const limits = limitsMs(options.leaseTtlMs);
  const recovery = joinTimes(runs.map((run) => run.recovery));
  const total = (of: "stepsBegunAgain" | "stepsReplayed") =>
    runs.reduce((sum, run) => sum + (run.journal?.[of] ?? 0), 0);
  const secondsPerRun = runs.reduce((sum, run) => sum + run.seconds, 0) / Math.max(1, runs.length);
  const finalHash = twin.summary?.stateSha256 ?? "";
  return {
    machine: { cores: availableParallelism(), cpu: cpus()[0]?.model ?? "", loadAverage: loadavg()[1] },
    seed: options.seed,
    rollouts: options.rollouts,
    learners: options.learners,
    iterationsPerRun: plan.iterations,
    sets: options.sets ?? [],
    runs: runs.length,
    faults: runs.flatMap((run) => run.faults.map(faultRow)),
    stepsBegunAgain: total("stepsBegunAgain"),
    stepsReplayed: total("stepsReplayed"),
    learnersGivenUp: runs.reduce((sum, run) => sum + run.learnersGivenUp, 0),
    recovery: Object.fromEntries(
      RECOVERY_NAMES.map((name) => [name, figure(recovery[name], limits[name])]),
    ) as ChaosReport["recovery"],
    replay,
    violations,
    twinSeconds: twin.seconds,
    secondsPerRun,
    throughputKept: runs.length === 0 ? 0 : twin.seconds / secondsPerRun,
    isFinalHashEqual:
      plan.isReproducible && runs.length > 0 && finalHash !== ""
        ? runs.every((run) => run.summary?.stateSha256 === finalHash)
        : null,
    experiences: {
      trained: runs.reduce((sum, run) => sum + (run.journal?.trained ?? 0), 0),
      dropped: addUp(runs.map((run) => run.journal?.dropped ?? {})),
    },
    finalHash,
  };
}

function addUp(counts: readonly Readonly<Record<string, number>>[]): Record<string, number> {
  const total: Record<string, number> = {};
  for (const [name, count] of counts.flatMap((one) => Object.entries(one)))
    total[name] = (total[name] ?? 0) + count;
  return total;
}

function faultRow({ planned, run, name, phase, stage, iteration, optimizerStep }: InjectedFault): FaultRow {
  const { number, signal, stoppedMs } = planned;
  return {
    number,
    run,
    what: signal === "SIGKILL" ? signal : `${signal} for ${(stoppedMs / 1000).toFixed(1)} s`,
    victim: name,
    phase,
    at:
      stage === "ppo"
        ? `ppo iteration ${iteration}, step ${optimizerStep}`
        : `${stage || "start"} step ${optimizerStep}`,
  };
}

const figure = (values: readonly number[], limitMs: number | undefined): RecoveryFigure => ({
  count: values.length,
  p50Ms: quantile(values, 0.5),
  p95Ms: quantile(values, 0.95),
  maxMs: quantile(values, 1),
  limitMs,
});

const RECOVERY_TEXTS: Readonly<Record<keyof RecoveryTimes, string>> = {
  rolloutNoticed: "rollout killed -> its tasks are free",
  rolloutReleased: "rollout killed -> its task is another worker's",
  learnersRegrouped: "learner killed in a step -> the step is committed",
  coordinatorBack: "coordinator killed -> its successor listens",
  workersAttached: "successor listens -> all living workers registered",
  strangersBack: "stopped worker, given up, goes on -> registered again",
};

/** More rows than this tell nothing that the counts do not. */
const FAULT_ROWS_SHOWN = 40;

export function reportText(report: ChaosReport): string {
  const { faults, recovery, replay, violations, machine } = report;
  const counts = countsBy(faults, ({ victim, what }) => `${what.split(" ")[0]} ${victim.split("-")[0]}`);
  const phases = countsBy(faults, ({ phase }) => phase);
  const lines = [
    `${faults.length} faults in ${report.runs} runs of ${report.iterationsPerRun} iterations, ` +
      `${report.rollouts} rollouts, ${report.learners} learners, seed ${report.seed}`,
    ...(report.sets.length > 0 ? [`training: ${report.sets.join(" ")}`] : []),
    `machine: ${machine.cores} × ${machine.cpu}, load average ${machine.loadAverage.toFixed(1)}`,
    "",
    ...table(
      ["#", "run", "what", "victim", "phase", "at"],
      faults
        .slice(0, FAULT_ROWS_SHOWN)
        .map((fault) => [
          String(fault.number),
          String(fault.run),
          fault.what,
          fault.victim,
          fault.phase,
          fault.at,
        ]),
    ),
    ...(faults.length > FAULT_ROWS_SHOWN ? [`… and ${faults.length - FAULT_ROWS_SHOWN} more`] : []),
    "",
    `by role   ${counts}`,
    `by phase  ${phases}`,
    "",
    ...table(
      ["recovery", "times", "p50", "p95", "max", "limit"],
      [
        ...RECOVERY_NAMES.map((name) => {
          const { count, p50Ms, p95Ms, maxMs, limitMs } = recovery[name];
          return [
            RECOVERY_TEXTS[name],
            String(count),
            ...[p50Ms, p95Ms, maxMs].map(seconds),
            limit(maxMs, limitMs),
          ];
        }),
        [
          `journal of ${replay.records} records replayed`,
          "1",
          "",
          "",
          seconds(replay.ms),
          limit(replay.ms, REPLAY_LIMIT_MS),
        ],
      ],
    ),
    "",
    `steps begun again  ${report.stepsBegunAgain} in flight (at most one per fault), ${report.stepsReplayed} committed ones repeated`,
    ...(report.learnersGivenUp > 0
      ? [
          `learners ended     ${report.learnersGivenUp}: the coordinator was away for longer than they wait (60 s); what they held is repeated`,
        ]
      : []),
    `throughput kept    ${(100 * report.throughputKept).toFixed(0)} % (a run took ${report.secondsPerRun.toFixed(1)} s, without faults ${report.twinSeconds.toFixed(1)} s)`,
    `experiences        ${report.experiences.trained} trained${droppedText(report)}`,
    `final state        ${finalStateText(report)}`,
    `violations         ${violations.length}`,
    ...violations.slice(0, 20).map(({ run, invariant, detail }) => `  run ${run}: ${invariant}: ${detail}`),
  ];
  return lines.join("\n");
}

const droppedText = ({ experiences }: ChaosReport): string =>
  Object.entries(experiences.dropped)
    .map(([reason, count]) => `, ${count} dropped as ${reason}`)
    .join("");

function finalStateText({ isFinalHashEqual, finalHash, runs }: ChaosReport): string {
  if (finalHash === "") return "not compared: the run without faults has none";
  if (runs === 0) return "not compared: there was no run under faults";
  if (isFinalHashEqual === null)
    return "not compared: with these settings the result depends on who was there when";
  return `${isFinalHashEqual ? "equal" : "DIFFERENT"} (sha256 ${finalHash.slice(0, 16)}… without faults)`;
}

const seconds = (ms: number | undefined): string => (ms === undefined ? "-" : `${(ms / 1000).toFixed(2)} s`);

function limit(maxMs: number | undefined, limitMs: number | undefined): string {
  if (limitMs === undefined) return "";
  const verdict = maxMs === undefined ? "not seen" : maxMs <= limitMs ? "kept" : "MISSED";
  return `${(limitMs / 1000).toFixed(0)} s: ${verdict}`;
}

function countsBy<T>(items: readonly T[], keyOf: (item: T) => string): string {
  const counts = new Map<string, number>();
  for (const item of items) counts.set(keyOf(item), (counts.get(keyOf(item)) ?? 0) + 1);
  return [...counts]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([key, count]) => `${key} ${count}`)
    .join(", ");
}

/** Columns as wide as their widest cell, two spaces apart. */
export function table(head: readonly string[], rows: readonly (readonly string[])[]): string[] {
  const widths = head.map((title, i) => Math.max(title.length, ...rows.map((row) => row[i].length)));
  return [head, ...rows].map((row) =>
    row
      .map((cell, i) => cell.padEnd(widths[i]))
      .join("  ")
      .trimEnd(),
  );
}
