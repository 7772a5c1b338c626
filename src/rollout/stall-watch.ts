import { TroupeError } from "../shared/errors.js";

/**
 * The result of `work`, unless `advanced` stays the same for `limitMs` meanwhile. Time in which this process did not run
 * either (it was stopped, the machine slept) does not count.
 * @param onStall told of it: a thread that hangs can only be ended with its process, and whoever started that starts another
 * @throws {TroupeError} INTERNAL what `onStall` is told
 */
export function whileItAdvances<T>(
  work: Promise<T>,
  advanced: () => number,
  limitMs: number,
  what: string,
  onStall: (error: TroupeError) => void,
): Promise<T> {
  const lookEveryMs = Math.min(1_000, limitMs / 4);
  return new Promise((resolve, reject) => {
    let before = advanced();
    let stillMs = 0;
    const timer = setInterval(() => {
      const now = advanced();
      stillMs = now === before ? stillMs + lookEveryMs : 0;
      before = now;
      if (stillMs < limitMs) return;
      clearInterval(timer);
      const message = `${what}: the compute thread made no progress for ${limitMs} ms (cluster.taskTimeoutMs); the process ends, so that another is started`;
      const error = new TroupeError("INTERNAL", message);
      onStall(error);
      reject(error);
    }, lookEveryMs);
    work.then(resolve, reject).finally(() => clearInterval(timer));
  });
}
