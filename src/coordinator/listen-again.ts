/**
 * Taking back the ports of a coordinator that died: a port the system chose for it may meanwhile be the end of somebody's
 * short connection, above all that of a worker which knocks at it.
 */
import { errorCodeOf } from "../shared/errors.js";
import { sleep } from "../shared/abort.js";

const RETRY_MS = 200;
/** Half of what workers wait for a coordinator. */
const PATIENCE_MS = 30_000;

/** Tries until the port is free. @throws the last error about a port that stays taken, or the first about anything else */
export async function listenAgain<T>(
  listen: () => Promise<T>,
  signal: AbortSignal,
  patienceMs = PATIENCE_MS,
): Promise<T> {
  const deadlineMs = performance.now() + patienceMs;
  for (;;) {
    try {
      return await listen();
    } catch (error) {
      if (!isTaken(error) || signal.aborted || performance.now() >= deadlineMs) throw error;
      await sleep(RETRY_MS, signal);
    }
  }
}

const isTaken = (error: unknown): boolean => {
  const { cause } = error as Error;
  return (
    errorCodeOf(error) === "CONFIG" &&
    cause instanceof Error &&
    /EADDRINUSE/.test(`${String((cause as NodeJS.ErrnoException).code)} ${cause.message}`)
  );
};
