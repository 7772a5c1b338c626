/** One program under measurement. */
export interface Side {
  /** Does the work once. @returns units of it */
  readonly repeat: () => Promise<number>;
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
