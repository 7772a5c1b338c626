/**
 * When a round of parameter averaging has trained long enough. Half of the members set the pace: once they have
 * finished, the others get `patience` times the time it took, then are told to stop where they are; who has not answered
 * `answerLimitMs` later is left out. Knows neither clock nor network.
 */
/** Rounds of a few milliseconds end at uneven times on any machine; nobody is slow for that. */
const MIN_PATIENCE_MS = 1_000;

export interface RoundBarrierOptions {
  /** The least that the others get, ms. @default 1000 */
  readonly minPatienceMs?: number;
  /** Times what half of the members took; null: nobody is told to stop. */
  readonly patience: number | null;
  /** From being told to stop to the answer: as long as one optimizer step may take. */
  readonly answerLimitMs: number;
}

/** What to do now, and when to ask again at the latest. */
export type BarrierDecision =
  | { readonly action: "wait"; readonly untilMs: number }
  /** Tell these to finish the minibatch at hand. */
  | { readonly action: "stop"; readonly workerIds: readonly string[] }
  /** The round is trained: average over these. */
  | { readonly action: "average"; readonly workerIds: readonly string[] };

export class RoundBarrier {
  private readonly training: Set<string>;
  /** workerId -> minibatches it trained */
  readonly finished = new Map<string, number>();
  /** When half of the members had finished; undefined until then. */
  private pacedAtMs: number | undefined;
  private stoppedAtMs: number | undefined;

  constructor(
    workerIds: readonly string[],
    private readonly startedMs: number,
    private readonly options: RoundBarrierOptions,
  ) {
    this.training = new Set(workerIds);
  }

  finish(workerId: string, minibatches: number): void {
    if (this.training.delete(workerId)) this.finished.set(workerId, minibatches);
  }

  /** It is gone, and its part with it. */
  leave(workerId: string): void {
    this.training.delete(workerId);
    this.finished.delete(workerId);
  }

  decide(nowMs: number): BarrierDecision {
    const { training, finished, options } = this;
    const workerIds = [...finished.keys()];
    if (training.size === 0) return { action: "average", workerIds };
    if (finished.size >= training.size) this.pacedAtMs ??= nowMs;
    if (this.stoppedAtMs !== undefined) {
      const untilMs = this.stoppedAtMs + options.answerLimitMs;
      if (nowMs < untilMs) return { action: "wait", untilMs };
      return finished.size > 0 ? { action: "average", workerIds } : { action: "wait", untilMs: Infinity };
    }
    if (this.pacedAtMs === undefined || options.patience === null)
      return { action: "wait", untilMs: Infinity };
    const { minPatienceMs = MIN_PATIENCE_MS } = options;
    const extraMs = Math.max(minPatienceMs, options.patience * (this.pacedAtMs - this.startedMs));
    const untilMs = this.pacedAtMs + extraMs;
    if (nowMs < untilMs) return { action: "wait", untilMs };
    this.stoppedAtMs = nowMs;
    return { action: "stop", workerIds: [...training] };
  }
}

/** A leaf of the reduction tree, as the range of positions below it. */
export interface TreeLeaf {
  readonly level: number;
  readonly index: number;
}

/**
 * A binary tree with one leaf per contributor, for any number of them: over the next power of two, the first leaves stand
 * one level higher.
 * @example leavesOf(3) // { shardCount: 4, leaves: [(1,0), (0,2), (0,3)] }
 */
export function leavesOf(count: number): { readonly shardCount: number; readonly leaves: TreeLeaf[] } {
  const shardCount = 2 ** Math.ceil(Math.log2(count));
  const pairs = shardCount - count;
  const leaves = Array.from({ length: count }, (_, i) =>
    i < pairs ? { level: 1, index: i } : { level: 0, index: i + pairs },
  );
  return { shardCount, leaves };
}
