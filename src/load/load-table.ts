/** Load results side by side. */
import type { LoadResult } from "./measure-load.js";

const COLUMNS: readonly (readonly [string, (result: LoadResult) => string])[] = [
  ["rollouts", ({ options }) => String(options.rollouts)],
  ["learners", ({ options }) => String(options.learners)],
  ["exp/s", ({ experiencesPerSecond }) => experiencesPerSecond.toFixed(0)],
  ["exp/s collecting", ({ collectPerSecond }) => collectPerSecond.toFixed(0)],
  ["MB/s", ({ megabytesPerSecond }) => megabytesPerSecond.toFixed(1)],
  ["coordinator cores", ({ coordinatorCores }) => coordinatorCores.toFixed(2)],
  ["CPU µs/exp", ({ cpuMicrosPerExperience }) => cpuMicrosPerExperience.toFixed(0)],
  ["heartbeat p50 ms", ({ heartbeatMs }) => heartbeatMs.p50.toFixed(1)],
  ["p99 ms", ({ heartbeatMs }) => heartbeatMs.p99.toFixed(1)],
  ["max ms", ({ heartbeatMs }) => heartbeatMs.max.toFixed(0)],
  ["loop lag p99 ms", ({ loopLagMs }) => loopLagMs.p99.toFixed(1)],
  ["max ms", ({ loopLagMs }) => loopLagMs.max.toFixed(0)],
  [
    "RSS MB first→last (max)",
    ({ residentMb }) => `${residentMb[0]}→${residentMb.at(-1)} (${Math.max(...residentMb)})`,
  ],
  ["journal MB", ({ journalMb }) => journalMb.toFixed(1)],
  ["steps", ({ steps }) => String(steps)],
  ["join s", ({ joinSeconds }) => joinSeconds.toFixed(1)],
  ["gave up", ({ gaveUp }) => String(gaveUp)],
  ["CPU ms/join", ({ cpuMillisPerJoin }) => cpuMillisPerJoin.toFixed(2)],
];

const row = (cells: readonly string[]): string => `| ${cells.join(" | ")} |`;

export const rowOfLoad = (result: LoadResult): string => row(COLUMNS.map(([, show]) => show(result)));

/** A Markdown table, one row per result. */
export function tableOfLoads(results: readonly LoadResult[]): string {
  return [
    row(COLUMNS.map(([title]) => title)),
    row(COLUMNS.map(() => "---:")),
    ...results.map(rowOfLoad),
  ].join("\n");
}
