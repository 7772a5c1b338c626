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

const waiting: (() => void)[] = [];
let isDue = false;

function giveTurns(): void {
  isDue = true;
  setImmediate(() => {
    isDue = false;
    waiting.shift()?.();
    if (waiting.length > 0) giveTurns();
  });
}

/**
 * Resolves once timers and sockets were served; one caller at a time, in order. A plain setImmediate lets all of them
 * go in the same round of the loop, which then lasts as long as all their slices together.
 */
export function nextTurn(): Promise<void> {
  return new Promise((resolve) => {
    waiting.push(resolve);
    if (!isDue) giveTurns();
  });
}

/** Runs a slice at a time; timers, sockets and other slices come in between. */
export async function inSlices<T>(steps: Steps<T>): Promise<T> {
  for (;;) {
    const endMs = performance.now() + SLICE_MS;
    do {
      const step = steps.next();
      if (step.done === true) return step.value;
    } while (performance.now() < endMs);
    await nextTurn();
  }
}
