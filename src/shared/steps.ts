/**
 * Long computations of a process that must answer meanwhile: a generator that yields wherever it can be interrupted.
 * What it computes does not depend on who runs it, or on how often it had to wait.
 */
export type Steps<T> = Generator<void, T, void>;

/** Work for so long, then let everything else have its turn. */
const SLICE_MS = 8;

/** Runs to the end without a pause. */
export function atOnce<T>(steps: Steps<T>): T {
  for (;;) {
    const step = steps.next();
    if (step.done === true) return step.value;
  }
}

/** Runs a slice at a time; timers, sockets and other slices come in between. */
export async function inSlices<T>(steps: Steps<T>): Promise<T> {
  for (;;) {
    const endMs = performance.now() + SLICE_MS;
    do {
      const step = steps.next();
      if (step.done === true) return step.value;
    } while (performance.now() < endMs);
    await new Promise((resolve) => setImmediate(resolve));
  }
}
