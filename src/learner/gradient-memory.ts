/** Where gradients are: taken for a micro-shard, added up along the tree, sent, applied, and taken again. */
import type { Arena, Engine } from "../engine/engine.js";
import type { VectorPool } from "../engine/vector-pool.js";
import type { TrainedModel } from "./trained-model.js";

/** The gradients of one micro-shard. */
export interface ShardGradient {
  /** What the programs of each role add to. */
  readonly arenas: ReadonlyMap<string, Arena>;
  /** Every role's, concatenated in role-name order; call it once, when all of them are written. */
  read(): Promise<Float32Array>;
}

export class GradientMemory {
  /** At a large model's size, touching fresh memory costs more than writing it. */
  private readonly spare: Float32Array[] = [];
  private readonly maxSpare: number;

  /** @param models in role-name order */
  constructor(
    private readonly engine: Engine,
    private readonly models: readonly TrainedModel[],
    private readonly pool: VectorPool,
  ) {
    // One for each shard under way, one to be added to another.
    this.maxSpare = 1 + (engine.lanes ?? 1);
  }

  /** float32 elements of a gradient: what is trained of all models together. */
  get elementCount(): number {
    return this.models.reduce((sum, { layout }) => sum + layout.size, 0);
  }

  /** Room for one micro-shard. In host memory programs write where the tree adds; from a device it is downloaded. */
  take(): ShardGradient {
    const { engine } = this;
    const values = this.spare.pop() ?? this.pool.allocate(this.elementCount);
    const arenas = new Map(
      this.partsOf(values).map(([model, part]): [string, Arena] => [
        model.role,
        engine.arenaOver?.(model.layout, part) ?? model.grads,
      ]),
    );
    const read = async (): Promise<Float32Array> => {
      if (engine.arenaOver !== undefined) for (const arena of arenas.values()) arena.dispose();
      else for (const [model, part] of this.partsOf(values)) part.set(await model.grads.read());
      return values;
    };
    return { arenas, read };
  }

  /** Takes back what is no longer needed. */
  keep(gradients: Float32Array): void {
    if (this.spare.length < this.maxSpare) this.spare.push(gradients);
  }

  /** Views of a concatenated gradient, by model. */
  partsOf(gradients: Float32Array): [TrainedModel, Float32Array][] {
    let offset = 0;
    return this.models.map((model) => {
      const part = gradients.subarray(offset, offset + model.layout.size);
      offset += model.layout.size;
      return [model, part];
    });
  }
}
