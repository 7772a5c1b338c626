/** What a side has measured by itself, because the work happens in other processes or only a part of it counts. */
export interface Lap {
  readonly units: number;
  readonly seconds: number;
  /** Of the processes that did the work. @default that of the side's own process */
  readonly cpuSeconds?: number;
  /** Other numbers of this turn; a standing holds their medians. */
  readonly facts?: Readonly<Record<string, number>>;
}

/** One program under measurement. */
export interface Side {
  /** Does the work once. @returns units of it, timed from outside unless it says otherwise */
  readonly repeat: () => Promise<number | Lap>;
  readonly close: () => Promise<void>;
  /** Numbers about its start, for example seconds to compile. */
  readonly facts?: Readonly<Record<string, number>>;
}

/** The models that benchmarks run: all GPT-2 in shape, weights drawn at random. */
export interface ModelShape {
  readonly layers: number;
  readonly hidden: number;
  readonly heads: number;
  readonly vocabulary: number;
  readonly context: number;
}
