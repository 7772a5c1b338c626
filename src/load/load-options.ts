/** What one load measurement drives: shared by the process that measures and the processes that play workers. */

export interface LoadOptions {
  readonly rollouts: number;
  readonly learners: number;
  /** Further rollout workers, which send what nobody asked for as fast as they can. */
  readonly flooders: number;
  /** What each of them sends a second; 0 = all that is taken. */
  readonly floodPerSecond: number;
  /** Payload of one experience on the wire; sets the answer's length. */
  readonly experienceBytes: number;
  /** float32 elements of one gradient, and of the model files that learners publish. */
  readonly gradientElements: number;
  /** Experiences collected before every optimizer step. */
  readonly collection: number;
  readonly promptsPerTask: number;
  /** What a rollout worker takes to perform a task, and a learner to compute its shards, milliseconds. */
  readonly taskMs: number;
  readonly stepMs: number;
  readonly heartbeatMs: number;
  /** Measured time, after every worker has joined and the first iteration is over. */
  readonly seconds: number;
  /** Nobody ever finishes a task: what is measured is what workers cost that only live. */
  readonly isIdle?: boolean;
}

/** An experience is a prompt of about this many tokens (4 bytes each) and an answer of 16 bytes a token. */
const PROMPT_TOKENS = 14;
const BYTES_PER_PROMPT_TOKEN = 4;
const BYTES_PER_RESPONSE_TOKEN = 16;
/** Ids and numbers of one experience message. */
const HEADER_BYTES = 60;

/** Answer tokens R such that the message of one experience has about `bytes` bytes: 60 + 4·14 + 16·R. */
export function responseTokensFor(bytes: number): number {
  const left = bytes - HEADER_BYTES - PROMPT_TOKENS * BYTES_PER_PROMPT_TOKEN;
  return Math.max(1, Math.round(left / BYTES_PER_RESPONSE_TOKEN));
}

/** A power of two of micro-shards, at least one per learner where the collection allows it. */
export function microShardsFor({
  learners,
  collection,
}: Pick<LoadOptions, "learners" | "collection">): number {
  const wanted = 2 ** Math.ceil(Math.log2(Math.max(8, learners)));
  return Math.min(wanted, 2 ** Math.floor(Math.log2(collection)));
}

/** One optimizer step holds all of a collection: more would measure how large a minibatch gets. */
const MOST_COLLECTED = 32_768;

/** Two tasks for every worker, so that nobody waits for another before the collection ends; 4,096 to 32,768 experiences. */
export function defaultCollection(rollouts: number, promptsPerTask: number): number {
  const wanted = 2 ** Math.ceil(Math.log2(2 * rollouts * promptsPerTask));
  return Math.min(MOST_COLLECTED, Math.max(4096, wanted));
}
