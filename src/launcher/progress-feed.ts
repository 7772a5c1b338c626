/** Carries a coordinator's progress events to a view, over restarts of the coordinator, each event once. */
import type { ProgressEvent } from "../observability/progress.js";
import { sleep } from "../shared/abort.js";
import type { Control } from "./control.js";

export interface ProgressListener {
  progressEvent(event: ProgressEvent): void;
}

const RECONNECT_MS = 500;

export class ProgressFeed {
  #lastTimeMs = -Infinity;
  #lastSequence = -Infinity;

  constructor(
    readonly control: Pick<Control, "watch">,
    readonly listener: ProgressListener,
  ) {}

  /** Runs until `signal` aborts; a stream that breaks is opened again. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        for await (const event of this.control.watch(signal))
          if (this.#isNew(event)) this.listener.progressEvent(event);
      } catch {
        // The coordinator restarts or has ended; the supervisor reports which.
      }
      await sleep(RECONNECT_MS, signal);
    }
  }

  /**
   * A stream begins with what was said before. Sequence numbers start again with every coordinator process, the
   * clock does not.
   */
  #isNew(event: ProgressEvent): boolean {
    const { timeMs, sequence } = event as ProgressEvent & { timeMs?: number; sequence?: number };
    if (timeMs === undefined || sequence === undefined) return true;
    const isLater =
      timeMs > this.#lastTimeMs || (timeMs === this.#lastTimeMs && sequence > this.#lastSequence);
    if (!isLater) return false;
    [this.#lastTimeMs, this.#lastSequence] = [timeMs, sequence];
    return true;
  }
}
