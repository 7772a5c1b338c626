/** Entry of a process that plays workers; its parent sends what to play, and reads what they saw. */
import type { WorkerRole } from "../shared/roles.js";
import { playCrowd, type CrowdOptions } from "./crowd.js";

/** Round trips since the last report, milliseconds. */
export interface CrowdReport {
  readonly roundTrips: readonly number[];
  readonly cpuSeconds: number;
}

const REPORT_EVERY_MS = 1_000;

process.once("message", (options: CrowdOptions) => {
  const stopping = new AbortController();
  let roundTrips: number[] = [];
  const report = () => {
    const { user, system } = process.cpuUsage();
    process.send?.({ roundTrips, cpuSeconds: (user + system) / 1e6 } satisfies CrowdReport);
    roundTrips = [];
  };
  const timer = setInterval(report, REPORT_EVERY_MS);
  process.once("disconnect", () => process.exit(0));
  process.once("SIGTERM", () => stopping.abort());
  const note = (_role: WorkerRole, roundTripMs: number) => void roundTrips.push(roundTripMs);
  playCrowd(options, stopping.signal, note).then(
    () => {
      clearInterval(timer);
      process.disconnect?.();
    },
    (error: unknown) => {
      process.stderr.write(
        `load: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`,
      );
      process.exit(1);
    },
  );
});
