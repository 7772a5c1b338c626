/** Where gradients are: computed for a micro-shard, added up along the tree, sent, applied, and taken again. */
import type { Arena, Engine } from "../engine/engine.js";
import { hostMemory } from "../engine/host-arena.js";
import type { VectorPool } from "../engine/vector-pool.js";
import type { TrainedModel } from "./trained-model.js";

/** Where one model's gradient of one micro-shard is computed. */
export interface ShardRoom {
  /** What the programs add to. */
  readonly arena: Arena;
  /** The values; call it once, when all of them are written. */
  read(): Promise<Float32Array>;
}

export interface GradientMemoryOptions {
  /** In role-name order. */
  readonly models: readonly TrainedModel[];
  /** Gradients are sent while others are still computed: what is sent must be seen by two threads at once. */
  readonly isSeenEarly: boolean;
}

export class GradientMemory {
  /** At a large model's size, touching fresh memory costs more than writing it. Of all models together. */
  private readonly vectors: Float32Array[] = [];
  /** Of any one model; they never leave this thread. */
  private readonly parts: Float32Array[] = [];
  /** Vectors that the last computation took; as many are worth keeping. */
  private taken = 0;
  /** float32 elements of a gradient: what is trained of all models together. */
  readonly elementCount: number;
  private readonly partElements: number;

  constructor(
    private readonly engine: Engine,
    private readonly pool: VectorPool,
    private readonly options: GradientMemoryOptions,
  ) {
    const sizes = options.models.map(({ layout }) => layout.size);
    this.elementCount = sizes.reduce((sum, size) => sum + size, 0);
    this.partElements = Math.max(...sizes);
  }

  /** Parts of its vectors can be read by another thread while this one writes others. */
  get isSeenEarly(): boolean {
    return this.options.isSeenEarly;
  }

  /** One vector for each node that a computation hands out: every model's gradient, concatenated in role-name order. */
  takeVectors(count: number): Float32Array[] {
    this.taken = count;
    return Array.from({ length: count }, () => {
      const spare = this.vectors.pop();
      if (spare !== undefined) return spare;
      return this.isSeenEarly ? hostMemory(this.elementCount, true) : this.pool.allocate(this.elementCount);
    });
  }

  /** Takes back a vector that is no longer needed. */
  keep(gradients: Float32Array): void {
    if (this.vectors.length < this.taken) this.vectors.push(gradients);
  }

  /** One model's gradient of a micro-shard that is added to another's. */
  takePart({ layout }: TrainedModel): Float32Array {
    return (this.parts.pop() ?? hostMemory(this.partElements, false)).subarray(0, layout.size);
  }

  /** Takes back what `takePart` gave. */
  keepPart({ buffer }: Float32Array): void {
    this.parts.push(new Float32Array(buffer));
  }

  /** In host memory programs write where the tree adds; from a device it is downloaded. */
  roomIn(values: Float32Array, { layout, grads }: TrainedModel): ShardRoom {
    const arena = this.engine.arenaOver?.(layout, values);
    if (arena === undefined)
      return {
        arena: grads,
        read: async () => {
          values.set(await grads.read());
          return values;
        },
      };
    return {
      arena,
      read: async () => {
        arena.dispose();
        return values;
      },
    };
  }

  /** Views of a concatenated gradient, by model. */
  partsOf(gradients: Float32Array): [TrainedModel, Float32Array][] {
    let offset = 0;
    return this.options.models.map((model) => {
      const part = gradients.subarray(offset, offset + model.layout.size);
      offset += model.layout.size;
      return [model, part];
    });
  }
}
