import type { Config } from "../config/schema.js";
import type { StopTable } from "../data/stop-table.js";
import { createEngine, type CreateEngineOptions } from "../engine/create-engine.js";
import type { Engine } from "../engine/engine.js";
import type { ModelSpec } from "../models/model-spec.js";
import type { Prompt, Rollout, ScoredRollout } from "../rl/types.js";
import { isAllFinite } from "../rpc/codec/columns.js";
import { numericError } from "../shared/errors.js";
import { Generator } from "./generator.js";
import { ReplicaWeights, type Role, type RolloutModel } from "./replica-weights.js";
import type { SamplingOptions } from "./sampling.js";
import { Scorer, type Replica } from "./scorer.js";
import { noteAdvance, throwIfCancelled, type TaskSignals } from "./task-signals.js";

export type { Role, RolloutModel } from "./replica-weights.js";

export interface RolloutSettings {
  readonly engine: CreateEngineOptions;
  readonly models: readonly RolloutModel[];
  /** Tokens that end an answer. Empty: the actor's own. */
  readonly eosIds: readonly number[];
  /** Sequences decoded together, 1 to 64. */
  readonly slots: number;
  /** Longest prompt + response. @default what the tasks so far need: the cache grows with them, up to the context */
  readonly maxSequenceTokens?: number;
  /** See GeneratorOptions. @default 4 */
  readonly prefillRows?: number;
  /** How ref and reward model are held. @default "f32" */
  readonly frozenWeights?: Config["engine"]["frozenWeights"];
}

export interface RolloutTask {
  readonly prompts: readonly Prompt[];
  /** Written into the rollouts; the actor must have been loaded with it. */
  readonly policyVersion: number;
  readonly sampling: SamplingOptions;
  /** Stop strings. @default none */
  readonly stops?: StopTable | null;
  readonly needs: {
    /** Also refLogprobs, values and score: the result is then ScoredRollout[]. */
    readonly score: boolean;
  };
  /** Told of every token and pass, asked before each whether to go on. @default nobody is */
  readonly signals?: TaskSignals;
}

export interface LoadRequest {
  readonly role: Role;
  readonly path: string | readonly string[];
}

export interface PerformedTask<R extends Rollout = Rollout | ScoredRollout> {
  /** In the order of the task's prompts. */
  readonly rollouts: R[];
  readonly generateMs: number;
  readonly scoreMs: number;
}

/**
 * Prompts in, scored rollouts out: the actor generates, ref, critic and reward model judge. Plain and synchronous in
 * its order: calls run one after another, so weights never change in the middle of a sequence.
 */
export class RolloutCompute {
  private readonly weights: ReplicaWeights;
  private readonly scorer: Scorer;
  private generator: Generator | undefined;
  private queue: Promise<unknown> = Promise.resolve();
  /** Of the call that runs. */
  private signals: TaskSignals | undefined;

  private constructor(
    private readonly engine: Engine,
    /** Which engine computes and why; one line for the log. */
    readonly description: string,
    private readonly settings: RolloutSettings,
  ) {
    this.scorer = new Scorer(engine, settings.maxSequenceTokens, undefined, () => this.advance(1));
    this.weights = new ReplicaWeights(engine, settings.models, settings.frozenWeights);
  }

  /** @throws {TroupeError} CONFIG or DATA when the engine or a model's config cannot be used */
  static async open(settings: RolloutSettings): Promise<RolloutCompute> {
    const { engine, reason } = await createEngine(settings.engine);
    try {
      return new RolloutCompute(engine, `${engine.description} (${reason})`, settings);
    } catch (error) {
      await engine.dispose();
      throw error;
    }
  }

  /** Float32 memory of all models' weights. */
  get weightBytes(): number {
    return this.weights.bytes;
  }

  /**
   * Replaces a model's parameters, or its adapters where it has them; compiled programs stay. The old ones stay in use
   * unless the whole file is good.
   * @param path safetensors file with the tensors of the role's spec or of its adapters, or the files of a sharded model
   */
  loadModel({ role, path }: LoadRequest): Promise<void> {
    return this.inTurn(() => this.weights.load(role, [path].flat()));
  }

  /** Reads the whole model under a role's adapters; needless where a model that shares it was loaded. */
  loadBase({ role, path }: LoadRequest): Promise<void> {
    return this.inTurn(() => this.weights.loadBase(role, [path].flat()));
  }

  /**
   * Generates one answer per prompt and, when asked, scores it. Numbers that are not finite are handed on: whoever takes
   * the answers gives up that one prompt, with its reason, and keeps the others.
   * @throws {TroupeError} CANCELLED when `signals` say so
   */
  perform(task: RolloutTask): Promise<PerformedTask> {
    return this.inTurn(async () => {
      this.signals = task.signals;
      try {
        this.advance(0);
        const started = performance.now();
        const rollouts = await this.generate(task);
        const generated = performance.now();
        const result = task.needs.score ? await this.score(rollouts, task.sampling.temperature) : rollouts;
        return { rollouts: result, generateMs: generated - started, scoreMs: performance.now() - generated };
      } finally {
        this.signals = undefined;
      }
    });
  }

  /**
   * Answers only; needs no model but the actor.
   * @throws {TroupeError} NUMERIC when the model's logits are not finite
   */
  async generateOnly(task: Omit<RolloutTask, "needs">): Promise<Rollout[]> {
    const rollouts = await this.inTurn(() => this.generate(task));
    for (const { experienceId, logprobs } of rollouts)
      if (!isAllFinite(logprobs))
        throw numericError(`prompt ${experienceId}: the logits hold NaN or infinity`);
    return rollouts;
  }

  async close(): Promise<void> {
    await this.inTurn(async () => {
      this.generator?.dispose();
      this.weights.dispose();
      await this.engine.dispose();
    });
  }

  private async generate({
    prompts,
    policyVersion,
    sampling,
    stops = null,
  }: Omit<RolloutTask, "needs">): Promise<Rollout[]> {
    const actor = this.weights.of("actor", true);
    const longest = prompts.reduce((most, { promptIds }) => Math.max(most, promptIds.length), 1);
    const generator = this.generatorFor(actor.spec, longest + sampling.maxNewTokens);
    const requests = prompts.map(({ experienceId, promptIds }) => ({ key: experienceId, promptIds }));
    const answers = await generator.generate(requests, sampling, weightsOf(actor), stops);
    return answers.map(({ responseIds, logprobs, finishReason }, i) => {
      const { promptIndex, sampleIndex, experienceId, promptIds } = prompts[i];
      return {
        promptIndex,
        sampleIndex,
        experienceId,
        promptIds,
        policyVersion,
        responseIds,
        logprobs,
        finishReason,
      };
    });
  }

  /**
   * The generator, with a cache for sequences of so many tokens. Unless the settings fix its length, one that is too
   * short is replaced by one of at least twice the length, so that a growing conversation compiles few programs.
   */
  private generatorFor(spec: ModelSpec, sequenceTokens: number): Generator {
    const { slots, maxSequenceTokens, prefillRows, eosIds } = this.settings;
    const held = this.generator;
    const wanted = Math.min(maxSequenceTokens ?? sequenceTokens, spec.contextTokens);
    if (held !== undefined && held.maxSequenceTokens >= wanted) return held;
    held?.dispose();
    this.generator = undefined; // nothing is held when the new cache cannot be made
    const grown = Math.max(wanted, 2 * (held?.maxSequenceTokens ?? 0));
    this.generator = new Generator({
      engine: this.engine,
      spec,
      slots,
      onTokens: (count) => this.advance(count),
      maxSequenceTokens: maxSequenceTokens ?? Math.min(grown, spec.contextTokens),
      ...(prefillRows === undefined ? {} : { prefillRows }),
      ...(eosIds.length === 0 ? {} : { eosIds }),
    });
    return this.generator;
  }

  private advance(count: number): void {
    if (this.signals === undefined) return;
    throwIfCancelled(this.signals);
    noteAdvance(this.signals, count);
  }

  private async score(rollouts: readonly Rollout[], temperature: number): Promise<ScoredRollout[]> {
    const refLogprobs = await this.scorer.logprobs(this.weights.of("ref", true), rollouts, temperature);
    const values = await this.scorer.values(this.weights.of("critic", true), rollouts);
    const scores = await this.scorer.scores(this.weights.of("reward", true), rollouts);
    return rollouts.map((rollout, i) => ({
      ...rollout,
      refLogprobs: refLogprobs[i],
      values: values[i],
      score: scores[i],
    }));
  }

  private inTurn<T>(work: () => Promise<T>): Promise<T> {
    const result = this.queue.then(work);
    this.queue = result.catch(() => undefined); // the caller has the error; the next call must not inherit it
    return result;
  }
}

const weightsOf = ({ params, base }: Replica) => (base === undefined ? params : { params, base });
