/** How long a run took to recover from each fault, from the coordinator's log and what was seen from outside. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { InjectedFault } from "./faults.js";
import type { Progress } from "./observer.js";

/** A line of logs/coordinator.ndjson. */
export interface LogLine {
  /** Unix ms. */
  readonly atMs: number;
  readonly msg: string;
  readonly [field: string]: unknown;
}

/** Milliseconds, one entry per fault that needed the recovery and was not overtaken by the next fault. */
export interface RecoveryTimes {
  /** A rollout worker was killed: until its tasks were free for others. */
  readonly rolloutNoticed: readonly number[];
  /** Until one of them was another worker's: at once when one has room, else when one has (re)started. */
  readonly rolloutReleased: readonly number[];
  /** A learner was killed in the middle of a step: until the step was committed without it. */
  readonly learnersRegrouped: readonly number[];
  /** The coordinator was killed: until its successor listened, with its start and the replay of its journal. */
  readonly coordinatorBack: readonly number[];
  /** From there until every worker that had lived through it was registered again. */
  readonly workersAttached: readonly number[];
  /** A stopped worker had been given up: from SIGCONT until it was registered again. */
  readonly strangersBack: readonly number[];
}

export const RECOVERY_NAMES = [
  "rolloutNoticed",
  "rolloutReleased",
  "learnersRegrouped",
  "coordinatorBack",
  "workersAttached",
  "strangersBack",
] as const satisfies readonly (keyof RecoveryTimes)[];

export async function readCoordinatorLog(runDir: string): Promise<LogLine[]> {
  const text = await readFile(join(runDir, "logs", "coordinator.ndjson"), "utf8").catch(() => "");
  return text.split("\n").flatMap((line): LogLine[] => {
    try {
      const fields = JSON.parse(line) as { time: string; msg: string };
      return [{ ...fields, atMs: Date.parse(fields.time) }];
    } catch {
      return []; // empty, or cut by a kill
    }
  });
}

export function recoveryTimes(
  faults: readonly InjectedFault[],
  log: readonly LogLine[],
  progress: readonly Progress[],
): RecoveryTimes {
  const times = Object.fromEntries(RECOVERY_NAMES.map((name) => [name, [] as number[]])) as Record<
    keyof RecoveryTimes,
    number[]
  >;
  faults.forEach((fault, i) => {
    if (fault.planned.signal === "SIGSTOP") {
      const backMs = strangerBackMs(fault, log);
      if (backMs !== undefined) times.strangersBack.push(backMs);
      return;
    }
    const untilMs = faults[i + 1]?.atMs ?? Infinity;
    const lines = log.filter(({ atMs }) => atMs >= fault.atMs && atMs < untilMs);
    switch (fault.planned.role) {
      case "rollout": {
        const lost = lines.find(
          ({ msg, worker_id }) => msg.startsWith("worker lost") && worker_id === fault.name,
        );
        if (lost !== undefined) times.rolloutNoticed.push(lost.atMs - fault.atMs);
        const again = lines.find(
          ({ msg, before, reason }) =>
            msg === "task handed out again" && before === fault.name && reason !== "hedge",
        );
        if (again !== undefined) times.rolloutReleased.push(again.atMs - fault.atMs);
        return;
      }
      case "learner": {
        const aborted = lines.find(({ msg }) => msg.startsWith("optimizer step given up"));
        const committed =
          aborted &&
          progress.find(
            ({ atMs, stage, step }) =>
              atMs >= aborted.atMs && atMs < untilMs && stage === fault.stage && step >= Number(aborted.step),
          );
        if (committed) times.learnersRegrouped.push(committed.atMs - fault.atMs);
        return;
      }
      case "coordinator": {
        const back = lines.find(({ msg }) => msg === "coordinator listens");
        if (back === undefined) return;
        times.coordinatorBack.push(back.atMs - fault.atMs);
        const joined = fault.survivors.map((pid) =>
          lines.find((line) => line.atMs >= back.atMs && JOINED.has(line.msg) && line.pid === pid),
        );
        const lastMs = Math.max(...joined.map((line) => line?.atMs ?? Infinity));
        if (joined.length > 0 && lastMs < untilMs) times.workersAttached.push(lastMs - back.atMs);
        return;
      }
    }
  });
  return times;
}

/** undefined when it was not given up, or not seen again. */
function strangerBackMs(fault: InjectedFault, log: readonly LogLine[]): number | undefined {
  const goesOnMs = fault.atMs + fault.planned.stoppedMs;
  const isGivenUp = log.some(
    ({ atMs, msg, worker_id }) =>
      atMs >= fault.atMs && atMs < goesOnMs && msg.startsWith("worker lost") && worker_id === fault.name,
  );
  if (!isGivenUp) return undefined;
  const back = log.find(({ atMs, msg, pid }) => atMs >= goesOnMs && JOINED.has(msg) && pid === fault.pid);
  return back && back.atMs - goesOnMs;
}

const JOINED = new Set(["worker joined", "worker came back"]);

export function joinTimes(all: readonly RecoveryTimes[]): RecoveryTimes {
  return Object.fromEntries(
    RECOVERY_NAMES.map((name) => [name, all.flatMap((times) => times[name])]),
  ) as unknown as RecoveryTimes;
}

/** The value below which the share `q` of the values lies (nearest rank); undefined of none. */
export function quantile(values: readonly number[], q: number): number | undefined {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(q * sorted.length) - 1)];
}
