import { numericError } from "../shared/errors.js";

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
  /** log-probability of the token under the distribution it was sampled from. */
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
  /** Names the sequence in errors. */
  readonly key: string;
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
  private readonly heap: Int32Array;

  constructor(vocabularySize: number) {
    this.scores = new Float64Array(vocabularySize);
    this.weights = new Float64Array(vocabularySize);
    this.heap = new Int32Array(vocabularySize);
  }

  /**
   * @param logits `[V]`, a view of the engine's output; not changed
   * @throws {TroupeError} NUMERIC when logits are not finite numbers
   */
  draw(logits: Float32Array, options: SamplingOptions, draw: Draw): SampledToken {
    const { scores, weights } = this;
    this.score(logits, options, draw);

    let best = 0;
    for (let id = 1; id < scores.length; id++) if (scores[id] > scores[best]) best = id;
    const highest = scores[best];
    let total = 0;
    for (let id = 0; id < scores.length; id++) {
      const weight = Math.exp(scores[id] - highest);
      weights[id] = weight;
      total += weight;
    }
    if (!Number.isFinite(total)) throw numericError(`${draw.key}: logits hold NaN or infinity`);
    if (options.greedy) return { token: best, logprob: -Math.log(total) };

    if (options.topK > 0 || options.topP < 1) total = this.truncate(total, options);
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

  private score(logits: Float32Array, options: SamplingOptions, { seen, forbidden }: Draw): void {
    const { scores } = this;
    const { repetitionPenalty: penalty, temperature } = options;
    for (let id = 0; id < scores.length; id++) {
      let score = logits[id];
      if (seen !== null && seen[id] === 1) score = score < 0 ? score * penalty : score / penalty;
      scores[id] = score / temperature;
    }
    for (const id of forbidden) scores[id] = -Infinity;
  }

  /** Zeroes the weights that top-k and top-p cut off; returns the mass that is left. */
  private truncate(total: number, { topK, topP }: SamplingOptions): number {
    const { scores, weights, heap } = this;
    const before = (a: number, b: number): boolean =>
      scores[a] > scores[b] || (scores[a] === scores[b] && a < b);
    const sink = (root: number, size: number): void => {
      for (;;) {
        let child = 2 * root + 1;
        if (child >= size) return;
        if (child + 1 < size && before(heap[child + 1], heap[child])) child++;
        if (!before(heap[child], heap[root])) return;
        const moved = heap[root];
        heap[root] = heap[child];
        heap[child] = moved;
        root = child;
      }
    };
    // A heap, because nuclei are small: O(V) to build, O(log V) per kept token, against O(V log V) for a sort.
    const size = heap.length;
    for (let i = 0; i < size; i++) heap[i] = i;
    for (let i = (size >> 1) - 1; i >= 0; i--) sink(i, size);
    const kept: number[] = [];
    let left = size;
    const take = (): void => {
      kept.push(heap[0]);
      heap[0] = heap[--left];
      sink(0, left);
    };

    const k = topK > 0 ? Math.min(topK, size) : size;
    let massOfTopK = total;
    if (k < size) {
      while (kept.length < k || (left > 0 && scores[heap[0]] === scores[kept[k - 1]])) take();
      massOfTopK = kept.reduce((sum, id) => sum + weights[id], 0);
    }
    let mass = 0;
    let count = 0;
    while (count === 0 || (topP < 1 ? mass < topP * massOfTopK : count < kept.length)) {
      if (count === kept.length) {
        if (k < size || left === 0) break;
        take();
      }
      mass += weights[kept[count++]];
    }
    const chosen = new Map(kept.slice(0, count).map((id) => [id, weights[id]]));
    weights.fill(0);
    let sum = 0;
    for (const [id, weight] of [...chosen].sort(([a], [b]) => a - b)) {
      weights[id] = weight;
      sum += weight;
    }
    return sum;
  }
}
