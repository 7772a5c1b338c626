/**
 * The shell around the decision core: feeds it events one at a time, makes its journal records durable, then carries
 * out its other effects in order. Everything that decides anything is in ./core; everything that does I/O is not.
 */
import type { Logger } from "../observability/logger.js";
import { errorCodeOf, describeError, TroupeError } from "../shared/errors.js";
import type { ExperienceId } from "../rl/types.js";
import {
  collectedIds,
  nextDeadlineMs,
  reduce,
  type CoordinatorEvent,
  type CoordinatorState,
  type Effect,
} from "./core/index.js";
import type { DurableLog, LogEntry } from "./journal/index.js";

type EffectType = Exclude<Effect["type"], "journal">;
type EffectOf<T extends EffectType> = Extract<Effect, { type: T }>;
type Handler<T extends EffectType> = (effect: EffectOf<T>) => void;

/** How late a deadline may be noticed; the shortest are seconds. */
const SCHEDULE_MS = 10;

/** Effects are carried out for so long at a stretch: an event that gives thousands of workers a task has thousands. */
const STRETCH_MS = 8;

/** Experiences as they came over the wire, by id. */
export type Payloads = ReadonlyMap<ExperienceId, Uint8Array>;

interface Batch {
  readonly effects: readonly Effect[];
  /** The experiences that came with the event, if any, by id. */
  readonly payloads: Payloads | undefined;
  /** Called after the effects; not when the journal could not be written. */
  readonly done?: () => void;
}

export class CoreHost {
  private readonly handlers = new Map<EffectType, Handler<EffectType>[]>();
  private readonly queue: Batch[] = [];
  private isPumping = false;
  private timer: NodeJS.Timeout | undefined;
  private scheduling: NodeJS.Timeout | undefined;
  private isClosed = false;
  private idle: Promise<void> = Promise.resolve();

  /** @param fail called once when the journal cannot be written: nothing may be acknowledged after that */
  constructor(
    readonly state: CoordinatorState,
    private readonly log: DurableLog,
    private readonly logger: Logger,
    private readonly fail: (error: TroupeError) => void,
    /** Told how long every durable append took. */
    private readonly onAppended: (elapsedMs: number) => void = () => undefined,
  ) {}

  /** Registers who carries out an effect. Several handlers run in the order they were added. */
  on<T extends EffectType>(type: T, handler: Handler<T>): void {
    const list = this.handlers.get(type) ?? [];
    list.push(handler as unknown as Handler<EffectType>);
    this.handlers.set(type, list);
  }

  /** Hands one event to the core. Its effects follow asynchronously, after the records are durable. */
  dispatch(event: CoordinatorEvent, payloads?: Payloads): void {
    if (this.isClosed) return;
    const effects = reduce(this.state, event, performance.now());
    // A worker is told only whether it may be given work: nothing that a crash could undo, so that need not wait for what
    // is being synced.
    if (effects.length === 1 && effects[0].type === "AckHeartbeat") this.execute(effects[0]);
    else if (effects.length > 0) {
      this.queue.push({ effects, payloads });
      if (!this.isPumping) this.idle = this.pump();
    }
    this.schedule();
  }

  /** The iteration's experiences as the train loop got them, in id order. */
  experienceIdsOf(iteration: number): ExperienceId[] {
    return collectedIds(this.state.durable, iteration);
  }

  /** Resolves when every effect decided so far was carried out. */
  async settled(): Promise<void> {
    while (this.isPumping) await this.idle;
  }

  /**
   * Calls back once all that was decided so far is durable and its effects were carried out; at once when it is. Never
   * when the journal cannot be written: what is not durable must not be told.
   */
  whenDurable(then: () => void): void {
    if (this.isClosed) return;
    if (!this.isPumping) return then();
    this.queue.push({ effects: [], payloads: undefined, done: then });
  }

  async close(): Promise<void> {
    this.isClosed = true;
    clearTimeout(this.timer);
    clearTimeout(this.scheduling);
    await this.idle;
  }

  /** Looking for the next deadline costs with the number of workers: once for all events of some milliseconds. */
  private schedule(): void {
    this.scheduling ??= setTimeout(() => {
      this.scheduling = undefined;
      clearTimeout(this.timer);
      if (this.isClosed) return;
      const delayMs = Math.min(Math.max(nextDeadlineMs(this.state) - performance.now(), 1), 60_000);
      this.timer = setTimeout(() => this.dispatch({ type: "Tick" }), delayMs);
    }, SCHEDULE_MS);
  }

  private async pump(): Promise<void> {
    this.isPumping = true;
    try {
      await Promise.resolve(); // all events of one message share an append
      while (this.queue.length > 0) {
        // All that gathered while the last batch was synced shares one sync.
        const batches = this.queue.splice(0);
        const records = entriesOf(batches);
        if (records.length > 0) {
          const startedMs = performance.now();
          await this.log.append(records);
          this.onAppended(performance.now() - startedMs);
        }
        let stretchMs = performance.now();
        for (const { effects, done } of batches) {
          for (const effect of effects) {
            this.execute(effect);
            if (performance.now() - stretchMs < STRETCH_MS) continue;
            await new Promise(setImmediate);
            stretchMs = performance.now();
          }
          done?.();
        }
      }
    } catch (error) {
      this.isClosed = true;
      this.fail(
        error instanceof TroupeError
          ? error
          : new TroupeError(errorCodeOf(error), describeError(error), { cause: error }),
      );
    } finally {
      this.isPumping = false;
    }
  }

  private execute(effect: Effect): void {
    if (effect.type === "journal") return;
    for (const handler of this.handlers.get(effect.type) ?? []) {
      try {
        handler(effect);
      } catch (error) {
        // A broken stream must not keep the others from hearing; the core finds out by lease.
        this.logger.error({ err: error, effect: effect.type }, "effect failed");
      }
    }
  }
}

function entriesOf(batches: readonly Batch[]): LogEntry[] {
  const entries: LogEntry[] = [];
  for (const { effects, payloads } of batches) {
    for (const effect of effects) {
      if (effect.type !== "journal") continue;
      const { record, putPayloads = [], deletePayloads = [] } = effect;
      const put = putPayloads.map((id) => ({ id, bytes: payloads!.get(id)! }));
      entries.push({ record, put, delete: deletePayloads });
    }
  }
  return entries;
}
