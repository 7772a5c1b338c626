/** How a run comes to its end: its stages are done, someone stops it, or it cannot go on. The first reason stands. */
import { makeDeferred } from "../shared/abort.js";
import {
  TroupeError,
  describeError,
  errorCodeOf,
  EXIT_CODES,
  FATAL_EXIT_CODES,
  type ErrorCode,
} from "../shared/errors.js";
import type { Leadership } from "./standby.js";

/** How a run ended, for coordinators that stand by. */
export interface Outcome {
  /** null: it is done; CANCELLED: somebody stopped it, for all coordinators. */
  readonly code: ErrorCode | null;
  readonly message: string;
}

export class RunEnd {
  private readonly stopping = new AbortController();
  private readonly onTold = () => this.stop(new TroupeError("CANCELLED", "told to stop"));
  private over = false;
  private begun = false;
  private wish: string | undefined;

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

  /** Somebody wants the run to end, here and on every coordinator that stands by. */
  stopForAll(reason: string): void {
    if (!this.signal.aborted) this.wish = reason;
    this.stop(new TroupeError("CANCELLED", reason));
  }

  /** All that only this machine could lack is there: what fails from here on would fail elsewhere, too. */
  begin(): void {
    this.begun = true;
  }

  /**
   * What those who stand by are told: a run that is done, was stopped, or failed in a way that would repeat is over for
   * them, too. After anything else one of them goes on.
   * @param reason what ended the run; undefined when it is done
   */
  outcome(reason: unknown): Outcome | undefined {
    if (this.wish !== undefined) return { code: "CANCELLED", message: this.wish };
    if (reason === undefined) return { code: null, message: "done" };
    const code = errorCodeOf(reason);
    const wouldRepeat = this.begun && FATAL_EXIT_CODES.has(EXIT_CODES[code]);
    return wouldRepeat ? { code, message: describeError(reason) } : undefined;
  }

  /** Another coordinator goes on with the run: the workers are its, and so is what the run directory says. */
  get isHandedOver(): boolean {
    if (this.leadership === undefined || this.wish !== undefined) return false;
    return this.told.aborted || errorCodeOf(this.signal.reason) === "FENCED";
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
