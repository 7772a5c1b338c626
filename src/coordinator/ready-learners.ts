/** Who can be asked between steps; the core is told while nobody can. */
import type { LearnerDirective } from "../rpc/generated/troupe/v1/LearnerDirective.js";
import { abortable, sleep } from "../shared/abort.js";
import type { CoreHost } from "./core-host.js";
import type { StreamRegistry } from "./stream-registry.js";

const POLL_MS = 20;

export class ReadyLearners {
  /** How many wait for one. */
  private waiting = 0;

  constructor(
    private readonly host: CoreHost,
    private readonly streams: StreamRegistry<LearnerDirective>,
  ) {}

  /**
   * Learners that hold the state after the last finished step, have been told so, and can be reached; at least one.
   * @throws {TroupeError} the reason `signal` aborts for
   */
  async wait(signal: AbortSignal): Promise<string[]> {
    const ready = await this.now(signal);
    if (ready.length > 0) return ready;
    // The core says that training is paused, and ends the run when nobody comes.
    this.await(1);
    try {
      for (;;) {
        await abortable(sleep(POLL_MS, signal), signal);
        const ready = await this.now(signal);
        if (ready.length > 0) return ready;
      }
    } finally {
      this.await(-1);
    }
  }

  private await(change: 1 | -1): void {
    this.waiting += change;
    this.host.dispatch({ type: "LearnersAwaited", isAwaited: this.waiting > 0 });
  }

  private async now(signal: AbortSignal): Promise<string[]> {
    // Until then a commit may be decided but not sent yet, and what is asked now would overtake it.
    await abortable(this.host.settled(), signal);
    const { durable, volatile } = this.host.state;
    if (volatile.activeStep !== null) return [];
    return [...volatile.learners]
      .filter(
        ({ state, step, heal, workerId, incarnation }) =>
          state === "ready" &&
          heal === null &&
          step === durable.finishedStep &&
          this.streams.isBound(workerId, incarnation),
      )
      .map(({ workerId }) => workerId)
      .sort();
  }
}
