/** What the members of one generation report with their votes: metric sums of micro-shards, and times. */

/** Sums of one micro-shard, by metric name. */
export interface ShardSums {
  readonly shard: number;
  readonly sums: Readonly<Record<string, number>>;
}

export interface VoteReport {
  readonly generation: number;
  readonly stats: readonly ShardSums[];
  readonly computeMs: number;
  readonly allReduceMs: number;
}

/** Of a finished step; empty when it was answered from the journal. */
export interface VoteTotals {
  /** Metric sums over the whole minibatch, added in shard order. */
  readonly sums: Readonly<Record<string, number>>;
  /** Those of a round's first minibatch, when every learner still has the shared parameters; else the same. */
  readonly firstSums: Readonly<Record<string, number>>;
  /** Of the slowest member, milliseconds. */
  readonly computeMs: number;
  readonly allReduceMs: number;
}

export class StepVotes {
  private generation: number | undefined;
  private firstShards = 0;
  private readonly byShard = new Map<number, Readonly<Record<string, number>>>();
  private computeMs = 0;
  private allReduceMs = 0;

  /**
   * Starts over: what an older generation reported does not count.
   * @param firstShards micro-shards of the (first) minibatch
   */
  open(generation: number, firstShards: number): void {
    this.clear();
    this.generation = generation;
    this.firstShards = firstShards;
  }

  /** Votes of another generation are ignored. */
  add({ generation, stats, computeMs, allReduceMs }: VoteReport): void {
    if (generation !== this.generation) return;
    for (const { shard, sums } of stats) this.byShard.set(shard, sums);
    this.computeMs = Math.max(this.computeMs, computeMs);
    this.allReduceMs = Math.max(this.allReduceMs, allReduceMs);
  }

  /** The totals; nothing is kept. */
  take(): VoteTotals {
    const sums: Record<string, number> = {};
    const firstSums: Record<string, number> = {};
    // Whoever voted first: float64 sums depend on the order.
    for (const [shard, values] of [...this.byShard].sort(([a], [b]) => a - b)) {
      for (const [name, value] of Object.entries(values)) {
        sums[name] = (sums[name] ?? 0) + value;
        if (shard < this.firstShards) firstSums[name] = (firstSums[name] ?? 0) + value;
      }
    }
    const { computeMs, allReduceMs } = this;
    this.clear();
    return { sums, firstSums, computeMs, allReduceMs };
  }

  private clear(): void {
    this.generation = undefined;
    this.byShard.clear();
    this.computeMs = 0;
    this.allReduceMs = 0;
  }
}
