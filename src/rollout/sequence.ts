import type { FinishReason } from "../rl/types.js";
import { streamOf, type Stream } from "../shared/rng.js";
import type { Generated } from "./generator.js";
import type { SampledToken } from "./sampling.js";

/** One answer while it is being generated. */
export class Sequence {
  /** Its random numbers: the draw of response token i is number i of this stream. */
  readonly stream: Stream;
  /** `[V]` 1 for every token of prompt and response; null when nothing needs it. */
  readonly seen: Uint8Array | null;
  finishReason: FinishReason | null = null;
  /** Where the stop strings' automaton is, see StopDetector. */
  stopState = 0;
  private readonly responseIds: number[] = [];
  private readonly logprobs: number[] = [];

  /**
   * @param maxResponseTokens the answer is cut there, ≥ 1
   * @param vocabularySize    given when seen tokens are to be remembered
   */
  constructor(
    readonly key: string,
    readonly promptIds: Int32Array,
    private readonly maxResponseTokens: number,
    vocabularySize: number | null,
  ) {
    this.stream = streamOf(key);
    this.seen = vocabularySize === null ? null : new Uint8Array(vocabularySize);
    if (this.seen !== null) for (const id of promptIds) this.seen[id] = 1;
  }

  get responseTokens(): number {
    return this.responseIds.length;
  }

  /** Tokens of prompt and response so far. */
  get length(): number {
    return this.promptIds.length + this.responseIds.length;
  }

  get lastToken(): number {
    return this.responseIds[this.responseIds.length - 1];
  }

  /** @param ending why this token ends the answer, null when it does not */
  append({ token, logprob }: SampledToken, ending: "eos" | "stop" | null): void {
    this.responseIds.push(token);
    this.logprobs.push(logprob);
    if (this.seen !== null) this.seen[token] = 1;
    // What would follow a token that no distribution gave means nothing.
    const isCut = this.responseIds.length >= this.maxResponseTokens || !Number.isFinite(logprob);
    this.finishReason = ending ?? (isCut ? "length" : null);
  }

  result(): Generated {
    return {
      key: this.key,
      responseIds: Int32Array.from(this.responseIds),
      logprobs: Float32Array.from(this.logprobs),
      finishReason: this.finishReason!,
    };
  }
}
