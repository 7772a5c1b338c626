/** One model under training: parameters, gradient, optimizer moments and, if asked for, a moving average. */
import type { Arena, Engine } from "../engine/engine.js";
import { makeAdamwProgram, type AdamwOptions } from "../engine/optim.js";
import type { Layout } from "../engine/layout.js";
import { loadWeights } from "../models/checkpoint-dir.js";
import { initParams, layoutOf, parseModelConfig, type Head, type ModelSpec } from "../models/model-spec.js";
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

/** The memories that make up a model's state, by the name they have in a state file. */
export type MemoryName = "ema" | "m" | "param" | "v";

export class TrainedModel {
  private constructor(
    readonly role: string,
    readonly spec: ModelSpec,
    readonly layout: Layout,
    private readonly engine: Engine,
    private readonly optimizer: AdamwOptions,
    private readonly emaDecay: number | null,
    readonly grads: Arena,
    /** In name order; what a checkpoint stores. */
    readonly memories: ReadonlyMap<MemoryName, Arena>,
  ) {}

  /** @param emaDecay null keeps no average */
  static async open(
    settings: ModelSettings,
    engine: Engine,
    optimizer: AdamwOptions,
    emaDecay: number | null,
  ): Promise<TrainedModel> {
    const { role, head, file, initSeed } = settings;
    const spec = parseModelConfig(parseJson(settings.hfConfigJson, role), head);
    const layout = layoutOf(spec);
    const values =
      file === null
        ? initParams(spec, initSeed)
        : (await loadWeights([file], spec, { initMissing: initSeed })).values;
    const memories = new Map<MemoryName, Arena>();
    if (emaDecay !== null) memories.set("ema", engine.createArena(layout, values));
    memories.set("m", engine.createArena(layout));
    memories.set("param", engine.createArena(layout, values));
    memories.set("v", engine.createArena(layout));
    return new TrainedModel(
      role,
      spec,
      layout,
      engine,
      optimizer,
      emaDecay,
      engine.createArena(layout),
      memories,
    );
  }

  get params(): Arena {
    return this.memories.get("param")!;
  }

  /**
   * Clips to the global norm, one AdamW step, then the moving average.
   * @param gradient      `[layout.size]` sum over the minibatch
   * @param optimizerStep this step's number, from 1 (bias correction)
   */
  async apply(gradient: Float32Array, learningRate: number, optimizerStep: number): Promise<void> {
    await this.grads.write(gradient);
    const adamw = await this.engine.compile(makeAdamwProgram(this.layout, this.optimizer));
    await adamw.run(
      { params: this.params, grads: this.grads, m: this.memories.get("m")!, v: this.memories.get("v")! },
      { learningRate: Float32Array.of(learningRate), step: Float32Array.of(optimizerStep) },
    );
    const ema = this.memories.get("ema");
    if (ema === undefined || this.emaDecay === null) return;
    const average = await this.engine.compile(makeEmaProgram(this.spec, this.emaDecay));
    await average.run({ params: this.params, ema }, {});
  }

  dispose(): void {
    this.grads.dispose();
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
