/**
 * One model under training: parameters, gradient, optimizer moments and, if asked for, a moving average. With adapters
 * all of these cover what is trained only; the frozen base lies beside them.
 */
import type { Arena, Engine } from "../engine/engine.js";
import { adamwOnHost } from "../engine/host-adamw.js";
import { makeAdamwProgram, type AdamwOptions } from "../engine/optim.js";
import type { Layout } from "../engine/layout.js";
import type { VectorPool } from "../engine/vector-pool.js";
import { loadWeights } from "../models/checkpoint-dir.js";
import {
  frozenLayout,
  mergedWeights,
  splitWeights,
  trainedLayout,
  withLora,
  type LoraSettings,
} from "../models/lora.js";
import { initParams, parseModelConfig, type Head, type ModelSpec } from "../models/model-spec.js";
import { dataError } from "../shared/errors.js";
import { makeEmaProgram } from "./programs.js";

export interface ModelSettings {
  /** "model" in sft and reward; "actor" and "critic" in ppo. */
  readonly role: string;
  /** Text of the Hugging Face config.json. */
  readonly hfConfigJson: string;
  readonly head: Head;
  /** safetensors file with the parameters to start from; null starts fresh. */
  readonly file: string | null;
  /** Seed of fresh parameters, and of a scalar head that `file` lacks. */
  readonly initSeed: number;
}

export interface TrainingSettings {
  readonly optimizer: AdamwOptions;
  /** null keeps no average. */
  readonly emaDecay: number | null;
  /** Keep the momentum of an outer optimizer (./parameter-round). @default false */
  readonly outerMomentum?: boolean;
  /** null trains the model itself. @default null */
  readonly lora?: LoraSettings | null;
}

/** The memories that make up a model's state, by the name they have in a state file. */
export type MemoryName = "ema" | "m" | "outer" | "param" | "v";

export class TrainedModel {
  private ownGradient: Arena | undefined;

  private constructor(
    readonly role: string,
    readonly spec: ModelSpec,
    /** Of what is trained. */
    readonly layout: Layout,
    /** The base under frozen adapters; null when everything is trained. */
    private readonly frozen: Arena | null,
    private readonly engine: Engine,
    private readonly optimizer: AdamwOptions,
    private readonly emaDecay: number | null,
    /** In name order; what a checkpoint stores. */
    readonly memories: ReadonlyMap<MemoryName, Arena>,
  ) {}

  static async open(
    settings: ModelSettings,
    engine: Engine,
    { optimizer, emaDecay, lora = null, outerMomentum = false }: TrainingSettings,
  ): Promise<TrainedModel> {
    const { role, head, file, initSeed } = settings;
    const plain = parseModelConfig(parseJson(settings.hfConfigJson, role), head);
    const spec = lora === null ? plain : withLora(plain, lora);
    const layout = trainedLayout(spec);
    const param = engine.createArena(layout);
    // The live memory on a CPU: the model is never there twice.
    const into = spec.lora === undefined ? await param.read() : undefined;
    const loaded =
      file === null
        ? initParams(spec, initSeed, into)
        : (await loadWeights([file], spec, { initMissing: initSeed, into })).values;
    const frozenIn = frozenLayout(spec);
    const frozen = frozenIn === null ? null : engine.createArena(frozenIn);
    const parts = splitWeights(spec, loaded, initSeed, await frozen?.read());
    const values = parts.trained;
    await param.write(values);
    if (parts.frozen !== null) await frozen?.write(parts.frozen);
    const memories = new Map<MemoryName, Arena>();
    if (emaDecay !== null) memories.set("ema", engine.createArena(layout, values));
    memories.set("m", engine.createArena(layout));
    if (outerMomentum) memories.set("outer", engine.createArena(layout));
    memories.set("param", param);
    memories.set("v", engine.createArena(layout));
    return new TrainedModel(role, spec, layout, frozen, engine, optimizer, emaDecay, memories);
  }

  /** A gradient of its own, for engines that cannot write one where it is needed. */
  get grads(): Arena {
    return (this.ownGradient ??= this.engine.createArena(this.layout));
  }

  get params(): Arena {
    return this.memories.get("param")!;
  }

  /** What a program of this model reads, by alias. */
  get weights(): Readonly<Record<string, Arena>> {
    return this.frozen === null ? { params: this.params } : { params: this.params, frozen: this.frozen };
  }

  /** The plain model, adapters merged, in `layoutOf(spec)` order. @throws {TroupeError} DATA when it keeps no average */
  async merged(memory: "ema" | "param"): Promise<Float32Array> {
    const arena = this.memories.get(memory);
    if (arena === undefined) throw dataError(`model ${this.role} keeps no moving average; set ppo.ema`);
    const trained = await arena.read();
    if (this.spec.lora === undefined) return trained; // live memory: no copy of a whole model
    return mergedWeights(this.spec, { trained, frozen: (await this.frozen?.read()) ?? null });
  }

  /**
   * Clips to the global norm, then one AdamW step.
   * @param gradient      `[layout.size]` sum over the minibatch
   * @param norm          its `gradientNorm`
   * @param optimizerStep this step's number, from 1 (bias correction)
   */
  async adamw(
    gradient: Float32Array,
    norm: number,
    learningRate: number,
    optimizerStep: number,
    pool: VectorPool,
  ): Promise<void> {
    const state = { params: this.params, m: this.memories.get("m")!, v: this.memories.get("v")! };
    const scalars = { learningRate, step: optimizerStep };
    if (!(await adamwOnHost(state, gradient, norm, scalars, this.optimizer, pool))) {
      await this.grads.write(gradient);
      const adamw = await this.engine.compile(makeAdamwProgram(this.layout, this.optimizer));
      await adamw.run(
        { ...state, grads: this.grads },
        { learningRate: Float32Array.of(learningRate), step: Float32Array.of(optimizerStep) },
      );
    }
  }

  /** The moving average after `updates` optimizer steps; nothing when none is kept. */
  async average(updates = 1): Promise<void> {
    const ema = this.memories.get("ema");
    if (ema === undefined || this.emaDecay === null) return;
    const average = await this.engine.compile(makeEmaProgram(this.spec, this.emaDecay ** updates));
    await average.run({ params: this.params, ema }, {});
  }

  dispose(): void {
    this.ownGradient?.dispose();
    this.frozen?.dispose();
    for (const arena of this.memories.values()) arena.dispose();
  }
}

function parseJson(text: string, role: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw dataError(`model ${role}: its config.json is not valid JSON`, { cause });
  }
}
