import type { Arena, Engine, HostArrays, Program } from "../engine/engine.js";
import type { Layout } from "../engine/layout.js";
import { cacheLayout } from "../models/cache-layout.js";
import { frozenLayout, trainedLayout } from "../models/lora.js";
import type { ModelSpec } from "../models/model-spec.js";
import type { StopTable } from "../data/stop-table.js";
import type { FinishReason } from "../rl/types.js";
import { configError, dataError } from "../shared/errors.js";
import { uniformAt } from "../shared/rng.js";
import { decodeProgram, prefillProgram, type GenerationShape } from "./generation-programs.js";
import { logitRow } from "./logit-row.js";
import { TokenSampler, type SamplingOptions } from "./sampling.js";
import { StopDetector } from "./stop-strings.js";
import { Sequence } from "./sequence.js";
import { bucketOf, PREFILL_ROWS, promptStep } from "./token-buckets.js";

const DEFAULT_SLOTS = 16;
/** More of them would only take more memory: matrix products are at their fastest by then. */
export const MAX_SLOTS = 64;

export interface GeneratorOptions {
  readonly engine: Engine;
  readonly spec: ModelSpec;
  /** Sequences decoded together, 1 to 64. @default 16 */
  readonly slots?: number;
  /** Longest prompt + response; at most the model's context. */
  readonly maxSequenceTokens: number;
  /**
   * Prompts read into the cache together. Part of the compiled shape: keep it equal wherever the same tokens are
   * wanted. 1 starts a single sequence soonest. @default 4
   */
  readonly prefillRows?: number;
  /** Tokens that end an answer ("eos"). @default the model's own */
  readonly eosIds?: readonly number[];
  /** Further tokens that end an answer ("stop"), for example the start of the next speaker's turn. @default none */
  readonly stopIds?: readonly number[];
  /** Called after every engine run with the tokens it made; throws to stop generation. */
  readonly onTokens?: (count: number) => void;
}

/** Weights of a model with adapters. */
export interface GeneratorWeights {
  /** In `trainedLayout(spec)`. */
  readonly params: Arena;
  /** In `frozenLayout(spec)`. */
  readonly base: Arena;
}

/** By alias, as the programs name them. */
type WeightArenas = Readonly<Record<string, Arena>>;

export interface GenerationPrompt {
  /** Names the sequence's random numbers: the experience id. Unique within a call. */
  readonly key: string;
  /** `[P]`, P ≥ 1 */
  readonly promptIds: Int32Array;
}

export interface Generated {
  readonly key: string;
  /** `[R]`, R ≥ 1, with the ending token when there is one. */
  readonly responseIds: Int32Array;
  /** `[R]` under the distribution sampled from. */
  readonly logprobs: Float32Array;
  readonly finishReason: FinishReason;
}

/**
 * Continuous batched generation against a shared key/value cache of fixed slots: finished slots are refilled with
 * waiting prompts while the others keep decoding.
 *
 * A sequence's tokens and log-probabilities depend on (weights, seed, key, prompt, sampling options, stop strings) only: shapes are
 * fixed, rows do not see each other, and each draw has its own random number, keyed by (seed, key, token index). The
 * last bits also depend on the engine, on `prefillRows`, beyond 16 slots without ONNX Runtime's C API on `slots`, and, where onnx splits a small matrix over threads, on their
 * number: give every worker of a run the same.
 */
export class Generator {
  private readonly shape: GenerationShape;
  private readonly decodeStep: Program;
  private readonly cache: Arena;
  private readonly sampler: TokenSampler;
  private readonly prefillRows: number;
  private readonly eosIds: readonly number[];
  private readonly stopIds: readonly number[];
  private readonly endingIds: readonly number[];
  private stopDetector: StopDetector | null = null;

  constructor(private readonly options: GeneratorOptions) {
    const { engine, spec, maxSequenceTokens, slots = DEFAULT_SLOTS } = options;
    if (spec.head !== "lm") throw configError(`generator: needs a model with an lm head, got ${spec.head}`);
    if (!Number.isInteger(slots) || slots < 1 || slots > MAX_SLOTS) {
      throw configError(`generator: slots must be 1 to ${MAX_SLOTS}, got ${slots}`);
    }
    if (
      !Number.isInteger(maxSequenceTokens) ||
      maxSequenceTokens < 2 ||
      maxSequenceTokens > spec.contextTokens
    ) {
      throw configError(
        `generator: prompt + response of ${maxSequenceTokens} tokens must be 2 to the model's context of ${spec.contextTokens}; ` +
          "lower data.maxPromptTokens or generation.maxNewTokens",
      );
    }
    const rows = Math.max(2, slots); // the cache ops write rows one-hot, which takes at least two
    const cache = cacheLayout(spec, rows, maxSequenceTokens);
    this.shape = {
      spec,
      params: trainedLayout(spec),
      base: frozenLayout(spec),
      cache,
      slots: rows,
      slotTokens: maxSequenceTokens,
    };
    this.decodeStep = decodeProgram(this.shape);
    this.cache = createCache(engine, cache, rows, maxSequenceTokens);
    this.sampler = new TokenSampler(spec.vocabularySize);
    this.prefillRows = options.prefillRows ?? PREFILL_ROWS;
    this.eosIds = options.eosIds ?? spec.eosTokenIds;
    this.stopIds = options.stopIds ?? [];
    this.endingIds = [...this.eosIds, ...this.stopIds];
  }

  /** Longest prompt + response. */
  get maxSequenceTokens(): number {
    return this.shape.slotTokens;
  }

  /**
   * @param prompts answered in this order; any number of them
   * @param weights parameters in `layoutOf(spec)`, or adapters and the base under them; may hold other values at every
   *   call
   * @param stops   strings that end an answer ("stop"), with the token that completes them
   * @returns one answer per prompt, in the prompts' order; the last token of one has the log-probability NaN where the
   *   logits were not finite: it ends there
   * @throws {TroupeError} DATA for an empty, overlong or repeated prompt or a token outside the vocabulary
   */
  async generate(
    prompts: readonly GenerationPrompt[],
    sampling: SamplingOptions,
    weights: Arena | GeneratorWeights,
    stops: StopTable | null = null,
  ): Promise<Generated[]> {
    checkSampling(sampling);
    const arenas: WeightArenas = "params" in weights ? { ...weights } : { params: weights };
    this.stopDetector = stops === null ? null : new StopDetector(stops);
    this.checkPrompts(prompts);
    const sequences = prompts.map((prompt) => this.start(prompt, sampling));
    const waiting = [...sequences];
    const slots = new Array<Sequence | null>(this.shape.slots).fill(null);
    for (;;) {
      const free = slots.flatMap((sequence, slot) => (sequence === null ? [slot] : []));
      // A prefill costs the same for one prompt as for `prefillRows`: wait until it can be full, or must run.
      const isWorthwhile =
        free.length >= Math.min(this.prefillRows, waiting.length) || free.length === slots.length;
      if (waiting.length > 0 && isWorthwhile) await this.prefill(waiting, slots, free, sampling, arenas);
      else if (free.length < slots.length) await this.decode(slots, sampling, arenas);
      else break;
    }
    return sequences.map((sequence) => sequence.result());
  }

  dispose(): void {
    this.cache.dispose();
  }

  /** Moves waiting prompts of one bucket into free slots and draws their first token. */
  private async prefill(
    waiting: Sequence[],
    slots: (Sequence | null)[],
    free: readonly number[],
    sampling: SamplingOptions,
    arenas: WeightArenas,
  ): Promise<void> {
    const rows = this.prefillRows;
    const tokens = this.promptBucket(waiting[0]);
    const batch = waiting
      .filter((one) => this.promptBucket(one) === tokens)
      .slice(0, Math.min(rows, free.length));
    for (const sequence of batch) waiting.splice(waiting.indexOf(sequence), 1);

    const ids = new Int32Array(rows * tokens);
    const targets = new Int32Array(rows);
    const last = new Int32Array(rows);
    for (let row = 0; row < rows; row++) {
      const member = row < batch.length ? row : 0; // spare rows repeat the first prompt into its own slot
      const { promptIds } = batch[member];
      ids.set(promptIds, row * tokens);
      targets[row] = free[member];
      last[row] = row * tokens + promptIds.length - 1;
    }
    const program = await this.options.engine.compile(prefillProgram(this.shape, rows, tokens));
    const outputs = await program.run(
      { ...arenas, cache: this.cache },
      { ids, slots: targets, last, inverseTemperature: inverseTemperature(sampling) },
      { borrows: true },
    );
    batch.forEach((sequence, row) => {
      slots[free[row]] = sequence;
      this.extend(sequence, outputs, row, sampling);
    });
    this.release(slots);
    this.options.onTokens?.(batch.length);
  }

  /** Draws one token for every running sequence. */
  private async decode(
    slots: (Sequence | null)[],
    sampling: SamplingOptions,
    arenas: WeightArenas,
  ): Promise<void> {
    // An idle slot decodes token 0 at position 0; its next prefill overwrites that.
    const ids = Int32Array.from(slots, (sequence) => sequence?.lastToken ?? 0);
    const lengths = Int32Array.from(slots, (sequence) => (sequence === null ? 0 : sequence.length - 1));
    const program = await this.options.engine.compile(this.decodeStep);
    const outputs = await program.run(
      { ...arenas, cache: this.cache },
      { ids, lengths, inverseTemperature: inverseTemperature(sampling) },
      { borrows: true },
    );
    let running = 0;
    slots.forEach((sequence, slot) => {
      if (sequence === null) return;
      this.extend(sequence, outputs, slot, sampling);
      running++;
    });
    this.release(slots);
    this.options.onTokens?.(running);
  }

  private extend(sequence: Sequence, outputs: HostArrays, row: number, sampling: SamplingOptions): void {
    const index = sequence.responseTokens;
    const drawn = this.sampler.drawRow(logitRow(outputs, row, this.shape.spec.vocabularySize), sampling, {
      uniform: uniformAt(sampling.seed, sequence.stream, index),
      seen: sequence.seen,
      forbidden: index < sampling.minNewTokens ? this.endingIds : NONE,
    });
    const completesStop = this.advanceStops(sequence, drawn.token, index >= sampling.minNewTokens);
    const ending = this.eosIds.includes(drawn.token)
      ? "eos"
      : completesStop || this.stopIds.includes(drawn.token)
        ? "stop"
        : null;
    sequence.append(drawn, ending);
  }

  /** True when the token completes a stop string; one completed before an answer may end is passed over. */
  private advanceStops(sequence: Sequence, token: number, mayEnd: boolean): boolean {
    if (this.stopDetector === null) return false;
    const state = this.stopDetector.next(sequence.stopState, token);
    const isComplete = this.stopDetector.isFinal(state);
    sequence.stopState = isComplete ? 0 : state;
    return isComplete && mayEnd;
  }

  private release(slots: (Sequence | null)[]): void {
    slots.forEach((sequence, slot) => {
      if (sequence !== null && sequence.finishReason !== null) slots[slot] = null;
    });
  }

  private promptBucket({ promptIds }: Sequence): number {
    const { slotTokens } = this.shape;
    return bucketOf(promptIds.length, promptStep(slotTokens), slotTokens);
  }

  private start({ key, promptIds }: GenerationPrompt, sampling: SamplingOptions): Sequence {
    const { slotTokens, spec } = this.shape;
    const maxResponseTokens = Math.min(sampling.maxNewTokens, slotTokens - promptIds.length);
    return new Sequence(
      key,
      promptIds,
      maxResponseTokens,
      sampling.repetitionPenalty === 1 ? null : spec.vocabularySize,
    );
  }

  private checkPrompts(prompts: readonly GenerationPrompt[]): void {
    const { slotTokens, spec } = this.shape;
    const keys = new Set<string>();
    for (const { key, promptIds } of prompts) {
      if (keys.has(key))
        throw dataError(`prompt ${key}: two prompts have this key; they would share random numbers`);
      keys.add(key);
      if (promptIds.length === 0) throw dataError(`prompt ${key}: is empty; expected at least one token`);
      if (promptIds.length >= slotTokens) {
        const remedy =
          slotTokens < spec.contextTokens
            ? "raise maxSequenceTokens or shorten it"
            : "this is all the model can read: shorten it";
        throw dataError(
          `prompt ${key}: ${promptIds.length} tokens leave no room for a response in ${slotTokens}; ${remedy}`,
        );
      }
      const bad = promptIds.find((id) => id < 0 || id >= spec.vocabularySize);
      if (bad !== undefined)
        throw dataError(`prompt ${key}: token ${bad} is outside the vocabulary of ${spec.vocabularySize}`);
    }
  }
}

const NONE: readonly number[] = [];

/** @throws {TroupeError} CONFIG when there is not that much memory */
function createCache(engine: Engine, layout: Layout, slots: number, tokens: number): Arena {
  try {
    return engine.createArena(layout);
  } catch (cause) {
    if (!(cause instanceof RangeError)) throw cause;
    const gib = ((4 * layout.size) / 2 ** 30).toFixed(1);
    throw configError(
      `generator: the key/value cache for ${slots} sequences of ${tokens} tokens takes ${gib} GiB, which cannot be ` +
        "allocated; lower generation.maxNewTokens (--max-new-tokens), data.maxPromptTokens (a shorter prompt) or generation.slots",
      { cause },
    );
  }
}

const inverseTemperature = ({ temperature }: SamplingOptions): Float32Array =>
  Float32Array.of(1 / temperature);

function checkSampling(sampling: SamplingOptions): void {
  const { temperature, topK, topP, minNewTokens, maxNewTokens, repetitionPenalty } = sampling;
  const require = (isValid: boolean, field: keyof SamplingOptions, expected: string): void => {
    if (!isValid) throw configError(`sampling: ${field} must be ${expected}, got ${sampling[field]}`);
  };
  require(temperature > 0 && Number.isFinite(temperature), "temperature", "above 0");
  require(Number.isInteger(topK) && topK >= 0, "topK", "a whole number from 0");
  require(topP > 0 && topP <= 1, "topP", "in (0, 1]");
  require(Number.isInteger(minNewTokens) && minNewTokens >= 0, "minNewTokens", "a whole number from 0");
  require(Number.isInteger(maxNewTokens) && maxNewTokens >= 1, "maxNewTokens", "a whole number from 1");
  require(repetitionPenalty > 0 && Number.isFinite(repetitionPenalty), "repetitionPenalty", "above 0");
}
