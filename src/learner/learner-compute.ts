/**
 * What a learner computes: gradients of micro-shards, optimizer steps, evaluations; and its state in and out. No
 * threads, no network: calls must not overlap (the learner thread runs them one after another).
 */
import { createEngine, type CreateEngineOptions } from "../engine/create-engine.js";
import type { Engine } from "../engine/engine.js";
import { gradientNorm } from "../engine/host-adamw.js";
import type { AdamwOptions } from "../engine/optim.js";
import { VectorPool } from "../engine/vector-pool.js";
import { writeAdapterFile } from "../models/lora-files.js";
import type { Recompute } from "../models/forward-pass.js";
import type { LoraSettings } from "../models/lora.js";
import { layoutOf } from "../models/model-spec.js";
import type { WireFormat } from "../rpc/codec/gradient.js";
import { dataError, numericError, shapeError } from "../shared/errors.js";
import { writeSafetensors } from "../shared/safetensors.js";
import { evaluateRows } from "./evaluation.js";
import { GradientMemory } from "./gradient-memory.js";
import type { RunShape } from "./packing.js";
import { ParameterRound, type OuterStepRequest, type RoundSettings } from "./parameter-round.js";
import { ShardSums, type Minibatch } from "./shard-sums.js";
import {
  tasksOf,
  type ShardDropout,
  type ShardTask,
  type Denominators,
  type StageSettings,
} from "./shard-tasks.js";
import type { MicroShard, ShardRows } from "./shards.js";
import { TrainedModel, type ModelSettings } from "./trained-model.js";
import { restoreState, saveState, stateSha256, type StatePosition } from "./training-state.js";
import type { TreePosition } from "./tree-sum.js";

export type LearnerSettings = StageSettings & {
  readonly engine: CreateEngineOptions;
  /** Fills padded positions; any id of the vocabulary. */
  readonly padId: number;
  /** Tokens of one program run, see ./packing. @default 1024 */
  readonly microBatchTokens?: number;
  /** Of the stage's program runs, see ./run-shapes. @default none: every micro-shard has a shape that suits it */
  readonly runShapes?: readonly RunShape[];
  /** What gradients compute again instead of keeping it: less memory, more time, the same numbers. @default "none" */
  readonly recompute?: Recompute;
  readonly models: readonly ModelSettings[];
  /** Adapters of every model; null trains the models themselves. @default null */
  readonly lora?: LoraSettings | null;
  /** What gradients travel as, hence what every node of their tree is rounded to. @default "f32" */
  readonly wire?: WireFormat;
  /** By role; one per model. */
  readonly optimizers: Readonly<Record<string, AdamwOptions>>;
  /** Learners train alone and average their parameters; null: they add up gradients. @default null */
  readonly round?: RoundSettings | null;
};

export interface ShardsRequest {
  /** Contiguous micro-shards in ascending order. */
  readonly shards: readonly MicroShard[];
  /** All micro-shards of the minibatch, over all learners; a power of two. */
  readonly shardCount: number;
  readonly denominators: Denominators;
  /** Of a PPO step: told once, when the first model's part of every node is final. @default told nothing */
  readonly progress?: { postMessage(soFar: GradientsSoFar): void };
}

/** What can travel while the rest is computed. */
export interface GradientsSoFar {
  /** Those of the result, in memory that both threads see. */
  readonly nodes: readonly GradientNode[];
  /** Elements of one gradient. */
  readonly elementCount: number;
  /** So many, the first ones of every node, do not change any more. */
  readonly finalElements: number;
}

export interface GradientNode extends TreePosition {
  /** Every role's gradient in its layout's order, roles in name order, concatenated. */
  readonly gradients: Float32Array;
}

export interface ShardStats {
  readonly shard: number;
  /** Sums over the shard's rows or tokens; those of all shards add up to the minibatch's (losses included). */
  readonly values: Readonly<Record<string, number>>;
}

export interface ShardsResult {
  /** Roots of the maximal subtrees inside the shard range, left to right. */
  readonly nodes: readonly GradientNode[];
  /** float32 elements of one gradient; also told when there was no shard to compute. */
  readonly elementCount: number;
  readonly stats: readonly ShardStats[];
}

export interface ApplyRequest {
  /**
   * Sum over all micro-shards of the minibatch, laid out as `GradientNode.gradients`. Taken over: a later gradient is
   * written there.
   */
  readonly gradients: Float32Array;
  /** What `measureGradients` found; measured again when left out. */
  readonly gradNorms?: Readonly<Record<string, number>>;
  readonly learningRates: Readonly<Record<string, number>>;
  /** This step's number, from 1. */
  readonly optimizerStep: number;
  /** Other nodes of the step, which nobody needs any more. Taken over. @default none */
  readonly spare?: readonly Float32Array[];
}

export interface MeasuredGradients {
  /** The same vector; between threads it moves there and back. */
  readonly gradients: Float32Array;
  /** √(Σ g²) before clipping, by role; not finite when the gradient cannot be applied. */
  readonly gradNorms: Readonly<Record<string, number>>;
}

export interface EvaluateRequest {
  readonly rows: ShardRows;
}

export interface ExportRequest {
  readonly role: string;
  readonly path: string;
  /** The moving average instead of the parameters. @default false */
  readonly ema?: boolean;
}

export interface ExportStateRequest {
  readonly path: string;
  readonly digest: string;
}

/** `engine.microBatchTokens` of the config. */
const DEFAULT_MICRO_BATCH_TOKENS = 1024;

export class LearnerCompute {
  private constructor(
    private readonly settings: LearnerSettings,
    private readonly engine: Engine,
    /** In role-name order. */
    private readonly models: readonly TrainedModel[],
    private appliedStep: number,
    private readonly pool: VectorPool,
  ) {
    const { round, wire } = settings;
    const isSeenEarly = models.length > 1 && !round;
    const memory = new GradientMemory(engine, pool, { models, isSeenEarly });
    this.memory = memory;
    this.shardSums = new ShardSums({ engine, models, memory, wire, tasksOf: this.tasksOf.bind(this) });
    if (round) {
      const compute = { models, computeShards: this.computeShards.bind(this), adamw: this.adamw.bind(this) };
      this.openRound = new ParameterRound(compute, round);
    }
  }

  private readonly openRound: ParameterRound | undefined;

  private readonly memory: GradientMemory;

  private readonly shardSums: ShardSums;

  /** Opens the engine and loads the models. */
  static async open(settings: LearnerSettings): Promise<LearnerCompute> {
    const { engine } = await createEngine(settings.engine);
    const models: TrainedModel[] = [];
    try {
      for (const model of [...settings.models].sort((a, b) => (a.role < b.role ? -1 : 1))) {
        const optimizer = settings.optimizers[model.role];
        if (optimizer === undefined) throw dataError(`model ${model.role} has no optimizer settings`);
        const emaDecay = settings.stage === "ppo" && model.role === "actor" ? settings.hyper.emaDecay : null;
        models.push(
          await TrainedModel.open(model, engine, {
            optimizer,
            emaDecay,
            lora: settings.lora ?? null,
            outerMomentum: Boolean(settings.round),
          }),
        );
      }
    } catch (error) {
      for (const model of models) model.dispose();
      await engine.dispose();
      throw error;
    }
    return new LearnerCompute(settings, engine, models, 0, VectorPool.open(settings.engine.threads));
  }

  /** float32 elements of a gradient: what is trained of all models together. */
  get parameterCount(): number {
    return this.memory.elementCount;
  }

  get engineDescription(): string {
    return this.engine.description;
  }

  /** Gradients of the loss on micro-shards, added up along the fixed tree; changes no parameter. */
  async computeShards(request: ShardsRequest): Promise<ShardsResult> {
    return this.shardSums.compute(request);
  }

  private tasksOf({ index, rows }: MicroShard, minibatch: Minibatch): ShardTask[] {
    const { settings } = this;
    return tasksOf(rows, {
      ...minibatch,
      settings,
      specs: new Map(this.models.map(({ role, spec }) => [role, spec])),
      padId: settings.padId,
      microBatchTokens: this.microBatchTokens,
      runShapes: settings.runShapes ?? [],
      recompute: settings.recompute,
      dropout: this.dropoutOf(index),
    });
  }

  /** What a micro-shard's adapters drop in the next optimizer step. PPO trains the policy that sampled: nothing. */
  private dropoutOf(shard: number): ShardDropout | null {
    const { stage, lora, models } = this.settings;
    const rate = lora?.dropout ?? 0;
    if (rate === 0 || stage === "ppo") return null;
    return { rate, seed: models[0].initSeed, place: `${stage}/${this.appliedStep + 1}/${shard}` };
  }

  /**
   * Norms by role of a sum over all micro-shards, before anybody votes for it: elements can be finite and their squares
   * beyond float32, and then no optimizer step can be made of them. Changes nothing.
   * @throws {TroupeError} SHAPE
   */
  async measureGradients(gradients: Float32Array): Promise<MeasuredGradients> {
    if (gradients.length !== this.parameterCount)
      throw shapeError(`gradients: expected ${this.parameterCount} elements, got ${gradients.length}`);
    const gradNorms: Record<string, number> = {};
    for (const [{ role }, part] of this.memory.partsOf(gradients))
      gradNorms[role] = await gradientNorm(part, this.pool);
    return { gradients, gradNorms };
  }

  /**
   * One optimizer step on every model.
   * @returns gradient norms before clipping, by role
   * @throws {TroupeError} NUMERIC for a gradient that is not finite; nothing is changed then
   */
  async applyGradients({
    gradients,
    gradNorms: measured,
    learningRates,
    optimizerStep,
    spare = [],
  }: ApplyRequest): Promise<{ gradNorms: Readonly<Record<string, number>>; isFinite: true }> {
    const gradNorms = await this.adamw(gradients, learningRates, optimizerStep, measured);
    for (const vector of spare) this.memory.keep(vector);
    for (const model of this.models) await model.average();
    this.appliedStep = optimizerStep;
    return { gradNorms, isFinite: true };
  }

  /** Of a run that averages parameters. */
  get round(): ParameterRound {
    if (this.openRound === undefined) throw dataError("this learner was not set up to average parameters");
    return this.openRound;
  }

  async outerStep(request: OuterStepRequest): Promise<void> {
    await this.round.outerStep(request);
    this.appliedStep = request.step;
  }

  private async adamw(
    gradients: Float32Array,
    learningRates: Readonly<Record<string, number>>,
    optimizerStep: number,
    measured?: Readonly<Record<string, number>>,
  ): Promise<Readonly<Record<string, number>>> {
    const gradNorms = measured ?? (await this.measureGradients(gradients)).gradNorms;
    for (const { role } of this.models) {
      if (learningRates[role] === undefined)
        throw dataError(`optimizer step ${optimizerStep}: no learning rate for model ${role}`);
      if (!Number.isFinite(gradNorms[role])) {
        throw numericError(
          `optimizer step ${optimizerStep}: the gradient of model ${role} is not finite, or its norm is beyond float32; no parameter was changed`,
        );
      }
    }
    for (const [model, part] of this.memory.partsOf(gradients))
      await model.adamw(part, gradNorms[model.role], learningRates[model.role], optimizerStep, this.pool);
    this.memory.keep(gradients);
    return gradNorms;
  }

  /** Per-row numbers, in row order; see `evaluateRows`. */
  async evaluate({ rows }: EvaluateRequest): Promise<Record<string, Float64Array>> {
    return evaluateRows(rows, {
      engine: this.engine,
      modelOf: (role) => this.modelOf(role),
      settings: this.settings,
      padId: this.settings.padId,
      microBatchTokens: this.microBatchTokens,
      runShapes: this.settings.runShapes ?? [],
    });
  }

  /** Writes a model (or its moving average) as safetensors under Hugging Face names, adapters merged. */
  async exportModel({ role, path, ema = false }: ExportRequest): Promise<void> {
    const model = this.modelOf(role);
    await writeSafetensors(path, layoutOf(model.spec).entries, await model.merged(ema ? "ema" : "param"));
  }

  /** Writes a model's adapters as PEFT does; its adapter_config.json is in the file's metadata. */
  async exportAdapter({ role, path }: Pick<ExportRequest, "role" | "path">): Promise<void> {
    const { spec, params } = this.modelOf(role);
    await writeAdapterFile(path, spec, await params.read());
  }

  /** @param digest of the history that led to the state, see ./state-digest */
  async exportState({ path, digest }: ExportStateRequest): Promise<void> {
    await saveState(path, this.settings.stage, { optimizerStep: this.appliedStep, digest }, this.models);
  }

  /** @throws {TroupeError} DATA, before anything is changed, when the file does not fit this stage and its models */
  async loadState(path: string): Promise<StatePosition> {
    const position = await restoreState(path, this.settings.stage, this.models);
    this.appliedStep = position.optimizerStep;
    return position;
  }

  /** Fingerprint of parameters, moments and averages of every model, and of the step count. */
  async stateSha256(): Promise<string> {
    return stateSha256(this.appliedStep, this.models);
  }

  async close(): Promise<void> {
    for (const model of this.models) model.dispose();
    await this.pool.close();
    await this.engine.dispose();
  }

  private get microBatchTokens(): number {
    return this.settings.microBatchTokens ?? DEFAULT_MICRO_BATCH_TOKENS;
  }

  private modelOf(role: string): TrainedModel {
    const model = this.models.find((candidate) => candidate.role === role);
    if (model === undefined)
      throw dataError(
        `no model in role ${role}; expected one of ${this.models.map((m) => m.role).join(", ")}`,
      );
    return model;
  }
}
