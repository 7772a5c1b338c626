import { expNegative } from "./exponential.js";
import { drawByBlocks, type LogitRow } from "./logit-row.js";

/** How answers are sampled. Travels on the wire; every field is set. */
export interface SamplingOptions {
  /** The run's seed; tokens are a function of it, the experience id and the weights. Integer in [0, 2^32). */
  readonly seed: number;
  /** Logits are divided by it; > 0. 1 = the model's own distribution. */
  readonly temperature: number;
  /** Keep only the k most likely tokens (and ties with the k-th); 0 = off. */
  readonly topK: number;
  /** Keep the fewest most likely tokens whose mass reaches this, in (0, 1]; 1 = off. */
  readonly topP: number;
  /** End-of-answer tokens are forbidden before this many response tokens. */
  readonly minNewTokens: number;
  /** Longest response; ≥ 1. */
  readonly maxNewTokens: number;
  /** Logits of tokens already in the sequence are divided (if positive) or multiplied by it; 1 = off. */
  readonly repetitionPenalty: number;
  /** Always the most likely token; ties go to the lower id. */
  readonly greedy: boolean;
}

export interface SampledToken {
  readonly token: number;
  /** log-probability of the token under the distribution it was sampled from; NaN when the logits are no distribution. */
  readonly logprob: number;
}

/** What one draw depends on besides the logits. */
export interface Draw {
  /** Uniform in [0, 1). Unused when greedy. */
  readonly uniform: number;
  /** `[V]` 1 for tokens already in prompt or response; null when there is no repetition penalty. */
  readonly seen: Uint8Array | null;
  /** Tokens that may not be drawn now (end-of-answer tokens before minNewTokens). */
  readonly forbidden: readonly number[];
}

/**
 * Draws tokens from logits, in float64 and in a fixed order, so that equal logits give equal tokens everywhere.
 *
 *   s = penalise(logits)   s[forbidden] = −∞   s = s / temperature   keep top-k, then top-p of what is left
 *   p = softmax(s over kept)   token = first id whose cumulative p exceeds the uniform
 *
 * Order and tie rules are those of transformers' logits processors. When greedy the token is argmax s, and the
 * log-probability is that of softmax(s) without top-k and top-p.
 */
export class TokenSampler {
  private readonly scores: Float64Array;
  private readonly weights: Float64Array;
  /** Scratch of the heap. */
  private readonly ids: Int32Array;

  constructor(vocabularySize: number) {
    this.scores = new Float64Array(vocabularySize);
    this.weights = new Float64Array(vocabularySize);
    this.ids = new Int32Array(vocabularySize);
  }

  /**
   * `draw` on a row of a generation program's outputs: the same distribution, from one block of the row's tokens where
   * nothing is cut off or penalised. The engine made the sums in float32: log-probabilities are good to about 1e-6.
   */
  drawRow(row: LogitRow, options: SamplingOptions, draw: Draw): SampledToken {
    const isWhole = options.topP === 1 && (options.topK === 0 || options.topK >= row.logits.length);
    if (isWhole && !options.greedy && draw.seen === null) {
      const drawn = drawByBlocks(row, 1 / options.temperature, draw.forbidden, draw.uniform);
      if (drawn !== null && Number.isFinite(drawn.logprob)) return drawn;
    }
    return this.draw(row.logits, options, draw);
  }

  /** @param logits `[V]`, a view of the engine's output; not changed */
  draw(logits: Float32Array, options: SamplingOptions, draw: Draw): SampledToken {
    const { scores, weights } = this;
    const best = this.score(logits, options, draw);
    const highest = scores[best];
    let total = 0;
    for (let id = 0; id < scores.length; id++) {
      const weight = expNegative(scores[id] - highest);
      weights[id] = weight;
      total += weight;
    }
    if (!Number.isFinite(total)) return { token: best, logprob: NaN };
    if (options.greedy) return { token: best, logprob: -Math.log(total) };

    const topK = options.topK > 0 && options.topK < scores.length ? options.topK : null;
    if (topK !== null || options.topP < 1) total = this.truncate(total, topK, options.topP);
    const target = draw.uniform * total;
    let cumulative = 0;
    let token = best; // stands only if rounding keeps the last sum from passing the target
    for (let id = 0; id < weights.length; id++) {
      cumulative += weights[id];
      if (cumulative > target) {
        token = id;
        break;
      }
    }
    return { token, logprob: scores[token] - highest - Math.log(total) };
  }

  /** Fills `scores`; returns the id of the highest, the lowest such id on a tie. */
  private score(logits: Float32Array, options: SamplingOptions, { seen, forbidden }: Draw): number {
    const { scores } = this;
    const { repetitionPenalty: penalty } = options;
    const inverseTemperature = 1 / options.temperature;
    for (let id = 0; id < scores.length; id++) scores[id] = logits[id] * inverseTemperature;
    if (seen !== null) {
      for (let id = 0; id < seen.length; id++) {
        if (seen[id] === 1) scores[id] = scores[id] < 0 ? scores[id] * penalty : scores[id] / penalty;
      }
    }
    for (const id of forbidden) scores[id] = -Infinity;
    let best = 0;
    for (let id = 1; id < scores.length; id++) if (scores[id] > scores[best]) best = id;
    return best;
  }

  /**
   * Zeroes the weights that top-k (null: off) and top-p (1: off) cut off.
   * @param total sum of all weights
   * @returns the sum that is left
   */
  private truncate(total: number, topK: number | null, topP: number): number {
    const { scores, weights } = this;
    const heap = this.heapOf(topK === null ? ((1 - topP) * total) / weights.length : 0);
    let kept: number[] = [];
    if (topK !== null) {
      let kth = Infinity;
      while (kept.length < topK || (heap.size > 0 && scores[heap.top] === kth)) {
        kth = scores[heap.top];
        kept.push(heap.pop());
      }
    }
    if (topP < 1) {
      const limit = topP * (topK === null ? total : kept.reduce((sum, id) => sum + weights[id], 0));
      const nucleus: number[] = [];
      for (let mass = 0, i = 0; mass < limit && (topK === null ? heap.size > 0 : i < kept.length); i++) {
        const id = topK === null ? heap.pop() : kept[i];
        nucleus.push(id);
        mass += weights[id];
      }
      kept = nucleus;
    }
    const keptWeights = kept.sort((a, b) => a - b).map((id) => weights[id]);
    weights.fill(0);
    kept.forEach((id, i) => (weights[id] = keptWeights[i]));
    return keptWeights.reduce((sum, weight) => sum + weight, 0);
  }

  /**
   * Ids from most to least likely, ties by id. A heap, because nuclei are small: O(V) to build and O(log V) per id,
   * against O(V log V) for a sort.
   * @param lightest ids of less weight are left out. Below (1 − p)·total/V they weigh, all together, less than 1 − p,
   *   so none of them can be in the nucleus.
   */
  private heapOf(lightest: number): IdHeap {
    const { weights, ids } = this;
    let size = 0;
    for (let id = 0; id < weights.length; id++) if (weights[id] >= lightest) ids[size++] = id;
    return new IdHeap(ids, size, this.scores);
  }
}

/** A binary heap of ids in a given array, highest score first, then lowest id. */
class IdHeap {
  constructor(
    private readonly ids: Int32Array,
    public size: number,
    private readonly scores: Float64Array,
  ) {
    for (let root = (size >> 1) - 1; root >= 0; root--) this.sink(root);
  }

  get top(): number {
    return this.ids[0];
  }

  pop(): number {
    const { ids } = this;
    const top = ids[0];
    ids[0] = ids[--this.size];
    this.sink(0);
    return top;
  }

  private sink(root: number): void {
    const { ids, size } = this;
    for (;;) {
      let child = 2 * root + 1;
      if (child >= size) return;
      if (child + 1 < size && this.isBefore(ids[child + 1], ids[child])) child++;
      if (!this.isBefore(ids[child], ids[root])) return;
      const moved = ids[root];
      ids[root] = ids[child];
      ids[child] = moved;
      root = child;
    }
  }

  private isBefore(a: number, b: number): boolean {
    return this.scores[a] > this.scores[b] || (this.scores[a] === this.scores[b] && a < b);
  }
}
