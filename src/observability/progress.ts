/**
 * What a run tells the people watching it: terminal, dashboard, log, metrics.jsonl and TensorBoard all subscribe to
 * one bus of typed events. The bus only carries words about the run; no behaviour depends on a subscriber.
 */
import type { WorkerRole } from "../shared/roles.js";

export type ProgressStage = "sft" | "reward" | "ppo" | "eval";

/** Numbers of one step or iteration by name (src/observability/run-records.ts), e.g. `{"objective/kl": 3.1}`. */
export type MetricsRecord = Readonly<Record<string, number>>;

export interface SampleAnswer {
  readonly prompt: string;
  readonly response: string;
  readonly score: number;
}

export type ProgressEvent =
  | {
      readonly type: "run-started";
      readonly runId: string;
      readonly name: string;
      readonly stages: readonly string[];
    }
  | {
      readonly type: "stage-started";
      readonly stage: ProgressStage;
      /** What one unit is, and how many there will be. */
      readonly unit: "step" | "iteration" | "prompt";
      readonly totalUnits: number;
      /** Units already done by an earlier process of this run. */
      readonly completedUnits: number;
    }
  | {
      readonly type: "progress";
      readonly stage: ProgressStage;
      /** Finished units, this one included. */
      readonly completedUnits: number;
      readonly totalUnits: number;
      readonly metrics: MetricsRecord;
    }
  | {
      readonly type: "stage-finished";
      readonly stage: ProgressStage;
      readonly elapsedMs: number;
      /** Final numbers of the stage, e.g. held-out accuracy. */
      readonly metrics: MetricsRecord;
    }
  | { readonly type: "message"; readonly level: "info" | "warn" | "error"; readonly text: string }
  | {
      readonly type: "samples";
      readonly stage: ProgressStage;
      readonly completedUnits: number;
      readonly samples: readonly SampleAnswer[];
    }
  | {
      readonly type: "worker-joined";
      readonly workerId: string;
      readonly role: WorkerRole;
      readonly pid: number;
      readonly host: string;
      /** The worker's own metrics port. */
      readonly port: number;
    }
  | {
      readonly type: "worker-lost";
      readonly workerId: string;
      readonly role: WorkerRole;
      readonly reason: string;
    }
  | {
      readonly type: "worker-restarted";
      readonly workerId: string;
      readonly role: WorkerRole;
      readonly pid: number;
      readonly host: string;
      readonly port: number;
      /** Restarts of this worker so far, this one included. */
      readonly restarts: number;
      readonly reason: string;
    }
  | {
      readonly type: "checkpoint";
      readonly stage: ProgressStage;
      readonly completedUnits: number;
      readonly path: string;
      readonly bytes: number;
      readonly elapsedMs: number;
    }
  | {
      readonly type: "run-finished";
      readonly outcome: "succeeded" | "failed" | "cancelled";
      readonly elapsedMs: number;
      /** The error's message when it failed. */
      readonly error?: string;
    };

/** An event as delivered: with its place in the run and its wall-clock time. */
export type PublishedEvent = ProgressEvent & {
  /** 1, 2, 3, … per bus. */
  readonly sequence: number;
  /** Unix time, ms. Informational only. */
  readonly timeMs: number;
};

export type ProgressListener = (event: PublishedEvent) => void;

export interface EventBusOptions {
  /** Wall clock, Unix ms. @default Date.now */
  readonly now?: () => number;
  /** How many frequent events (progress, message, samples), and how many others, a late subscriber gets. @default 2000 */
  readonly historyEvents?: number;
  /** Called when a listener throws; the other listeners still get the event. @default ignored */
  readonly onListenerError?: (error: unknown) => void;
}

/**
 * Publish-subscribe with a bounded history. Delivery is synchronous and in order; a listener that throws disturbs
 * nobody. Frequent events have their own bound, so a long run never forgets its stages and workers.
 */
export class EventBus {
  readonly #now: () => number;
  readonly #historyEvents: number;
  readonly #onListenerError: (error: unknown) => void;
  readonly #listeners = new Set<ProgressListener>();
  readonly #frequent: PublishedEvent[] = [];
  readonly #rare: PublishedEvent[] = [];
  #sequence = 0;

  constructor(options: EventBusOptions = {}) {
    this.#now = options.now ?? Date.now;
    this.#historyEvents = options.historyEvents ?? 2000;
    this.#onListenerError = options.onListenerError ?? (() => {});
  }

  publish(event: ProgressEvent): PublishedEvent {
    const published: PublishedEvent = { ...event, sequence: ++this.#sequence, timeMs: this.#now() };
    const history = isFrequent(event) ? this.#frequent : this.#rare;
    history.push(published);
    if (history.length > this.#historyEvents) history.shift();
    for (const listener of [...this.#listeners]) this.#deliver(listener, published);
    return published;
  }

  /**
   * @param options.after deliver remembered events with a larger sequence first; 0 for all. Without it only new
   *   events are delivered.
   * @returns unsubscribes; calling it again does nothing
   */
  subscribe(listener: ProgressListener, options: { readonly after?: number } = {}): () => void {
    if (options.after !== undefined) {
      for (const event of this.history(options.after)) this.#deliver(listener, event);
    }
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  /** Remembered events with a sequence above `after`, in order. */
  history(after = 0): PublishedEvent[] {
    return [...this.#rare, ...this.#frequent]
      .filter((event) => event.sequence > after)
      .sort((a, b) => a.sequence - b.sequence);
  }

  #deliver(listener: ProgressListener, event: PublishedEvent): void {
    try {
      listener(event);
    } catch (error) {
      this.#onListenerError(error);
    }
  }
}

function isFrequent(event: ProgressEvent): boolean {
  return event.type === "progress" || event.type === "message" || event.type === "samples";
}
