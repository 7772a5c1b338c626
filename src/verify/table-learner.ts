/** Trains a small table of numbers with the same optimizer program as a model. */
import type { Arena, Engine, HostArrays, Program, Tensors } from "../engine/engine.js";
import { valueAndGradients } from "../engine/gradients.js";
import type { Layout } from "../engine/layout.js";
import { makeAdamwProgram, type AdamwOptions } from "../engine/optim.js";
import type { Tensor } from "@tensorflow/tfjs";

export class TableLearner {
  readonly params: Arena;
  private readonly grads: Arena;
  private readonly m: Arena;
  private readonly v: Arena;
  private step = 0;

  constructor(
    private readonly engine: Engine,
    private readonly layout: Layout,
    private readonly optimizer: AdamwOptions,
    initial: Float32Array,
  ) {
    this.params = engine.createArena(layout, initial);
    this.grads = engine.createArena(layout);
    this.m = engine.createArena(layout);
    this.v = engine.createArena(layout);
  }

  /** A program that puts the gradient of a loss into `grads`. */
  gradProgram(
    key: string,
    inputs: Program["inputs"],
    loss: (params: Tensors, inputs: Tensors) => Tensor,
  ): Program {
    const { layout } = this;
    return {
      key,
      arenas: { params: { layout, access: "read" }, grads: { layout, access: "update" } },
      inputs,
      body: ({ params }, tensors) => {
        const result = valueAndGradients(params, (current) => ({ loss: loss(current, tensors) }));
        return { outputs: { loss: result.loss }, updates: { grads: result.grads } };
      },
    };
  }

  /** One optimizer step. @returns the loss before it */
  async update(program: Program, inputs: HostArrays, learningRate: number): Promise<number> {
    const { params, grads, m, v } = this;
    const { loss } = await (await this.engine.compile(program)).run({ params, grads }, inputs);
    const adamw = await this.engine.compile(makeAdamwProgram(this.layout, this.optimizer));
    this.step += 1;
    await adamw.run(
      { params, grads, m, v },
      { learningRate: Float32Array.of(learningRate), step: Float32Array.of(this.step) },
    );
    return loss[0];
  }

  dispose(): void {
    for (const arena of [this.params, this.grads, this.m, this.v]) arena.dispose();
  }
}
