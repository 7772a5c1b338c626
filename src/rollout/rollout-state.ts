/** What a rollout process holds over reconnects: its compute thread, what is loaded there, and answers not yet durable. */
import type { ComputePool } from "../worker/compute-pool.js";
import type { Holdings } from "../worker/coordinator-link.js";
import type { TroupeError } from "../shared/errors.js";
import { ExperienceUplink } from "./experience-uplink.js";
import type * as rolloutThread from "./rollout-thread.js";
import { advancedBy, cancelTask, makeTaskSignals, type TaskSignals } from "./task-signals.js";

export interface Attempt {
  readonly taskId: string;
  readonly attempt: number;
}

export class RolloutState {
  /** sha256 of the parameters loaded, by model role. */
  readonly loaded = new Map<string, string>();
  /** Model shapes the thread was configured for. */
  configuredFor = "";
  policyVersion: number | undefined;
  readonly uplink = new ExperienceUplink();
  /** Attempts held that were not cancelled, in the order they are worked on. */
  readonly wanted = new Map<string, Attempt>();
  /** The compute thread does not answer any more: the process has to end. */
  stalled: TroupeError | undefined;
  onStalled: () => void = () => undefined;
  /** What the thread is at, also when its session is over; null between tasks. */
  private atWork: { readonly attempt: Attempt; readonly signals: TaskSignals } | null = null;
  private advancedBefore = 0;
  private turn: Promise<void> = Promise.resolve();

  constructor(readonly compute: Pick<ComputePool<typeof rolloutThread>, "run">) {}

  /** One task after the other, over sessions: the next waits for what the last one left at work. */
  inTurn(attempt: Attempt, work: (signals: TaskSignals) => Promise<void>): Promise<void> {
    const result = this.turn.then(async () => {
      const signals = makeTaskSignals();
      this.atWork = { attempt, signals };
      try {
        await work(signals);
      } finally {
        this.advancedBefore += advancedBy(signals);
        this.atWork = null;
      }
    });
    this.turn = result.catch(() => undefined); // the caller has the error; the next task must not inherit it
    return result;
  }

  /** Nobody wants the attempt any more: it stops at its next token, or does not begin. */
  cancel(attempt: Attempt): void {
    this.wanted.delete(keyOf(attempt));
    if (this.atWork !== null && keyOf(this.atWork.attempt) === keyOf(attempt))
      cancelTask(this.atWork.signals);
  }

  /** What is held, with a counter for the task that is next in line; it grows while the thread works on anything. */
  holdings(): Holdings {
    const { atWork, policyVersion } = this;
    const advanced = 1 + this.advancedBefore + (atWork === null ? 0 : advancedBy(atWork.signals));
    const tasks = [...this.wanted.values()].map((attempt, place) => ({
      ...attempt,
      tokens: place === 0 ? advanced : 0,
    }));
    return { policyVersion, tasks };
  }

  /** Another run: its ids mean something else. Parameters are known by their sha256, which holds in any run. */
  forget(): void {
    this.policyVersion = undefined;
    if (this.atWork !== null) cancelTask(this.atWork.signals);
    this.uplink.clear();
  }

  stall(error: TroupeError): void {
    this.stalled = error;
    this.onStalled();
  }
}

export const keyOf = ({ taskId, attempt }: Attempt): string => `${taskId} ${attempt}`;
