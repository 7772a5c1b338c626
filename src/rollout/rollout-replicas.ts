import type { Config } from "../config/schema.js";
import type { StopTable } from "../data/stop-table.js";
import { createEngine, type CreateEngineOptions } from "../engine/create-engine.js";
import type { Engine } from "../engine/engine.js";
import { frozenForm } from "../models/frozen.js";
import { loadWeights } from "../models/checkpoint-dir.js";
import { layoutOf, parseModelConfig, type Head, type ModelSpec } from "../models/model-spec.js";
import type { Prompt, Rollout, ScoredRollout } from "../rl/types.js";
import { configError, dataError, numericError } from "../shared/errors.js";
import { Generator } from "./generator.js";
import type { SamplingOptions } from "./sampling.js";
import { Scorer, type Replica } from "./scorer.js";

export const ROLES = ["actor", "ref", "reward", "critic"] as const;
export type Role = (typeof ROLES)[number];

/** Roles whose model stays as it is for a whole run. */
const FROZEN_ROLES: readonly Role[] = ["ref", "reward"];

export interface RolloutModel {
  readonly role: Role;
  /** Text of its Hugging Face config.json. */
  readonly hfConfigJson: string;
  readonly head: Head;
}

export interface RolloutSettings {
  readonly engine: CreateEngineOptions;
  readonly models: readonly RolloutModel[];
  /** Tokens that end an answer. Empty: the actor's own. */
  readonly eosIds: readonly number[];
  /** Sequences decoded together, 1 to 64. */
  readonly slots: number;
  /** Longest prompt + response. @default the actor's context */
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
  private readonly replicas = new Map<Role, Replica>();
  private readonly loaded = new Set<Role>();
  private readonly scorer: Scorer;
  private generator: Generator | undefined;
  private queue: Promise<unknown> = Promise.resolve();

  private constructor(
    private readonly engine: Engine,
    /** Which engine computes and why; one line for the log. */
    readonly description: string,
    private readonly settings: RolloutSettings,
  ) {
    this.scorer = new Scorer(engine);
    for (const { role, hfConfigJson, head } of settings.models) {
      if (!ROLES.includes(role))
        throw configError(`model role must be one of ${ROLES.join(", ")}, got ${role}`);
      const spec = parseModelConfig(parseJson(hfConfigJson, role), head);
      const isInt8 = settings.frozenWeights === "int8" && FROZEN_ROLES.includes(role);
      this.replicas.set(
        role,
        isInt8 ? int8Replica(engine, spec) : { spec, params: engine.createArena(layoutOf(spec)) },
      );
    }
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

  /**
   * Replaces a model's parameters; compiled programs stay. The old ones stay in use unless the whole file is good.
   * @param path safetensors file with the tensors of the role's spec, or the files of a sharded model
   */
  loadModel(options: { readonly role: Role; readonly path: string | readonly string[] }): Promise<void> {
    return this.inTurn(async () => {
      const { role, path } = options;
      const { spec, params } = this.replica(role);
      const { values } = await loadWeights([path].flat(), spec);
      await params.write(values);
      this.loaded.add(role);
    });
  }

  /**
   * Generates one answer per prompt and, when asked, scores it.
   * @throws {TroupeError} NUMERIC naming experience and quantity when a number is not finite
   */
  perform(task: RolloutTask): Promise<PerformedTask> {
    return this.inTurn(async () => {
      const started = performance.now();
      const rollouts = await this.generate(task);
      const generated = performance.now();
      const result = task.needs.score ? await this.score(rollouts, task.sampling.temperature) : rollouts;
      return { rollouts: result, generateMs: generated - started, scoreMs: performance.now() - generated };
    });
  }

  /** Answers only; needs no model but the actor. */
  generateOnly(task: Omit<RolloutTask, "needs">): Promise<Rollout[]> {
    return this.inTurn(() => this.generate(task));
  }

  async close(): Promise<void> {
    await this.inTurn(async () => {
      this.generator?.dispose();
      for (const { params } of this.replicas.values()) params.dispose();
      await this.engine.dispose();
    });
  }

  private async generate({
    prompts,
    policyVersion,
    sampling,
    stops = null,
  }: Omit<RolloutTask, "needs">): Promise<Rollout[]> {
    const actor = this.replica("actor", true);
    this.generator ??= new Generator({
      engine: this.engine,
      spec: actor.spec,
      slots: this.settings.slots,
      maxSequenceTokens: this.settings.maxSequenceTokens ?? actor.spec.contextTokens,
      ...(this.settings.prefillRows === undefined ? {} : { prefillRows: this.settings.prefillRows }),
      ...(this.settings.eosIds.length === 0 ? {} : { eosIds: this.settings.eosIds }),
    });
    const requests = prompts.map(({ experienceId, promptIds }) => ({ key: experienceId, promptIds }));
    const answers = await this.generator.generate(requests, sampling, actor.params, stops);
    return answers.map(({ responseIds, logprobs, finishReason }, i) => {
      const { promptIndex, sampleIndex, experienceId, promptIds } = prompts[i];
      requireFinite(experienceId, "logprobs", logprobs);
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

  private async score(rollouts: readonly Rollout[], temperature: number): Promise<ScoredRollout[]> {
    const refLogprobs = await this.scorer.logprobs(this.replica("ref", true), rollouts, temperature);
    const values = await this.scorer.values(this.replica("critic", true), rollouts);
    const scores = await this.scorer.scores(this.replica("reward", true), rollouts);
    return rollouts.map((rollout, i) => {
      requireFinite(rollout.experienceId, "refLogprobs", refLogprobs[i]);
      requireFinite(rollout.experienceId, "values", values[i]);
      requireFinite(rollout.experienceId, "score", [scores[i]]);
      return { ...rollout, refLogprobs: refLogprobs[i], values: values[i], score: scores[i] };
    });
  }

  private replica(role: Role, needsWeights = false): Replica {
    const replica = this.replicas.get(role);
    if (replica === undefined) throw configError(`no ${role} model was configured`);
    if (needsWeights && !this.loaded.has(role))
      throw configError(`the ${role} model has no weights yet: load it first`);
    return replica;
  }

  private inTurn<T>(work: () => Promise<T>): Promise<T> {
    const result = this.queue.then(work);
    this.queue = result.catch(() => undefined); // the caller has the error; the next call must not inherit it
    return result;
  }
}

function int8Replica(engine: Engine, spec: ModelSpec): Replica {
  if (engine.createFrozenArena === undefined) {
    throw configError(
      `engine.frozenWeights: int8 is computed by the onnx engine on the CPU; this worker runs ${engine.description}. Set it to f32`,
    );
  }
  const form = frozenForm(spec);
  return { spec, params: engine.createFrozenArena(layoutOf(spec), form), form };
}

function parseJson(text: string, role: Role): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw dataError(`model ${role}: config.json is not JSON`, { cause });
  }
}

function requireFinite(experienceId: string, quantity: string, values: ArrayLike<number>): void {
  for (let i = 0; i < values.length; i++) {
    if (!Number.isFinite(values[i])) {
      throw numericError(
        `experience ${experienceId}: ${quantity}[${i}] is ${values[i]}; expected a finite number`,
      );
    }
  }
}
