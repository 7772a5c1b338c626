/**
 * The gradients of a learner's micro-shards, added up along the tree: one model after another, over all shards, so that
 * the first model's sums are final, and can travel, while those of the others are computed. The order changes no bit:
 * every run and every addition has the operands it would have in any other.
 */
import type { Engine } from "../engine/engine.js";
import type { WireFormat } from "../rpc/codec/gradient.js";
import { mapAhead } from "../shared/map-ahead.js";
import type { GradientMemory } from "./gradient-memory.js";
import type { GradientNode, ShardsRequest, ShardsResult } from "./learner-compute.js";
import type { ShardTask } from "./shard-tasks.js";
import type { MicroShard } from "./shards.js";
import type { TrainedModel } from "./trained-model.js";
import { subtreesOf, TreeSum } from "./tree-sum.js";

export interface ShardSumsOptions {
  readonly engine: Engine;
  /** In role-name order. */
  readonly models: readonly TrainedModel[];
  readonly memory: GradientMemory;
  readonly wire: WireFormat | undefined;
  /** The runs of all models whose gradients add up to the micro-shard's. */
  readonly tasksOf: (shard: MicroShard, minibatch: Minibatch) => ShardTask[];
}

export type Minibatch = Pick<ShardsRequest, "shardCount" | "denominators">;

/** One model's gradient of one micro-shard. */
interface Job {
  readonly model: TrainedModel;
  readonly shard: MicroShard;
  readonly tasks: readonly ShardTask[];
  /** Where the tree has its sum, for the first shard of a node; the others are added to that one. */
  readonly place: Float32Array | undefined;
}

type Sums = Record<string, number>;

export class ShardSums {
  constructor(private readonly options: ShardSumsOptions) {}

  async compute({ shards, shardCount, denominators, progress }: ShardsRequest): Promise<ShardsResult> {
    const { engine, memory, models, wire } = this.options;
    const { elementCount } = memory;
    const sums = new Map(
      shards.map(({ index, rows }): [number, Sums] => [index, { rows: rows.rows.length }]),
    );
    const resultOf = (nodes: readonly GradientNode[]): ShardsResult => ({
      ...{ nodes, elementCount },
      stats: [...sums].map(([shard, values]) => ({ shard, values })),
    });
    if (shards.length === 0) return resultOf([]);
    const positions = subtreesOf(shards[0].index, shards[shards.length - 1].index);
    const vectors = memory.takeVectors(positions.length);
    const nodes = positions.map((position, i) => ({ ...position, gradients: vectors[i] }));
    const partsOfNodes = nodes.map(({ gradients }) => new Map(memory.partsOf(gradients)));
    const tasks = new Map(
      shards.map((shard) => [shard.index, this.options.tasksOf(shard, { shardCount, denominators })]),
    );
    const jobs = models.flatMap((model) =>
      shards.map((shard): Job => {
        const node = nodes.findIndex(({ level, index }) => index * 2 ** level === shard.index);
        return { model, shard, tasks: tasks.get(shard.index)!, place: partsOfNodes[node]?.get(model) };
      }),
    );
    const trees = new Map(
      models.map((model) => [model, new TreeSum(wire, (values) => memory.keepPart(values))]),
    );
    // So many that no thread waits for another, added up in their order: bits do not depend on which is ready first. On a
    // device the shards of a model share one memory.
    const width = engine.arenaOver === undefined ? 1 : models.length * (engine.lanes ?? 1);
    const sideBySide = this.sharesThreads(shardCount);
    let done = 0;
    for await (const { model, index, values, statSums } of mapAhead(jobs, width, (job) =>
      this.run(job, sideBySide),
    )) {
      trees.get(model)!.push({ level: 0, index, values });
      Object.assign(sums.get(index)!, statSums);
      done += 1;
      if (done === shards.length && models.length > 1 && memory.isSeenEarly)
        progress?.postMessage({ nodes, elementCount, finalElements: models[0].layout.size });
    }
    return resultOf(nodes);
  }

  private async run(
    { model, shard, tasks, place }: Job,
    sideBySide: boolean,
  ): Promise<{ model: TrainedModel; index: number; values: Float32Array; statSums: Sums }> {
    const { engine, memory } = this.options;
    const { arena: grads, read } = memory.roomIn(place ?? memory.takePart(model), model);
    const statSums: Sums = {};
    let isFirst = true;
    for (const { program, inputs, statName } of tasks.filter(({ role }) => role === model.role)) {
      // The first run of a shard overwrites the gradient; those after it add to it.
      const executable = await engine.compile(isFirst ? program.overwriting : program, { sideBySide });
      isFirst = false;
      const outputs = await executable.run({ ...model.weights, grads }, inputs);
      for (const [output, [value]] of Object.entries(outputs))
        statSums[statName(output)] = (statSums[statName(output)] ?? 0) + value;
    }
    if (isFirst) await grads.clear();
    return { model, index: shard.index, values: await read(), statSums };
  }

  /**
   * True where a minibatch has work for every thread if each makes a run of its own; else all of them share one run. Asks
   * nothing but the config, so that all learners compute the same bits.
   */
  private sharesThreads(shardCount: number): boolean {
    const { engine, models } = this.options;
    return shardCount * models.length >= (engine.lanes ?? 1);
  }
}
