/** How a run comes to its end: its stages are done, someone stops it, or it cannot go on. The first reason stands. */
import { makeDeferred } from "../shared/abort.js";
import { TroupeError, errorCodeOf } from "../shared/errors.js";
import type { Leadership } from "./standby.js";

export class RunEnd {
  private readonly stopping = new AbortController();
  private readonly onTold = () => this.stop(new TroupeError("CANCELLED", "told to stop"));
  private over = false;

  /**
   * @param told aborts when this process is told to end
   * @param leadership undefined when no other coordinator can take over
   */
  constructor(
    private readonly told: AbortSignal,
    private readonly leadership: Leadership | undefined,
  ) {
    told.addEventListener("abort", this.onTold, { once: true });
    if (told.aborted) this.onTold();
  }

  /** Aborts with the reason. */
  get signal(): AbortSignal {
    return this.stopping.signal;
  }

  stop(reason: unknown): void {
    this.stopping.abort(reason);
  }

  /** Another coordinator goes on with the run: the workers are its, and so is what the run directory says. */
  get isHandedOver(): boolean {
    return (
      this.leadership !== undefined && (this.told.aborted || errorCodeOf(this.signal.reason) === "FENCED")
    );
  }

  /** Nobody goes on with the run: workers hear it with their next heartbeat, and leave. */
  get isOver(): boolean {
    return this.over;
  }

  /** Rejects with the reason. */
  whenStopped(): Promise<never> {
    const stopped = makeDeferred<never>();
    const reject = () => stopped.reject(this.signal.reason);
    if (this.signal.aborted) reject();
    else this.signal.addEventListener("abort", reject, { once: true });
    return stopped.promise;
  }

  /** From here on it does not change any more whether the run is over. */
  close(): void {
    this.over = !this.isHandedOver;
    this.told.removeEventListener("abort", this.onTold);
  }
}
