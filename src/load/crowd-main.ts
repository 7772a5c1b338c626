/** Entry of a process that plays workers; its parent sends what to play, and reads what they saw. */
import { playCrowd, type CrowdHooks, type CrowdOptions } from "./crowd.js";

/** Round trips since the last report, milliseconds. */
export interface CrowdReport {
  readonly roundTrips: readonly number[];
  readonly cpuSeconds: number;
  /** Workers that have joined so far. */
  readonly joined: number;
  /** Times that a worker found no coordinator and started again. */
  readonly gaveUp: number;
}

const REPORT_EVERY_MS = 1_000;

process.once("message", (options: CrowdOptions) => {
  const stopping = new AbortController();
  let roundTrips: number[] = [];
  let joined = 0;
  let gaveUp = 0;
  const report = () => {
    const { user, system } = process.cpuUsage();
    process.send?.({ roundTrips, cpuSeconds: (user + system) / 1e6, joined, gaveUp } satisfies CrowdReport);
    roundTrips = [];
  };
  const timer = setInterval(report, REPORT_EVERY_MS);
  process.once("disconnect", () => process.exit(0));
  process.once("SIGTERM", () => stopping.abort());
  const hooks: CrowdHooks = {
    onHeartbeat: (roundTripMs) => void roundTrips.push(roundTripMs),
    onJoined: () => void joined++,
    onGaveUp: () => void gaveUp++,
  };
  playCrowd(options, stopping.signal, hooks).then(
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
