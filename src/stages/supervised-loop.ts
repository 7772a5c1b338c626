/** The loop that sft and reward share: epochs of minibatches, one optimizer step each, checkpoints on the way. */
import { epochOrder, groupsOf, minibatches } from "../data/batches.js";
import { hasAdapters, type ModelSource } from "../coordinator/model-folders.js";
import type { StepInputs, StepRequest } from "../coordinator/optimizer-steps.js";
import { roundRequest } from "../coordinator/round-manifest.js";
import type { OptimizerConfig } from "../config/schema.js";
import { learningRateAt } from "../rl/schedule.js";
import type { MicroShard, ShardRows } from "../rpc/codec/shard.js";
import { cutMicroShards, shardCountOf } from "./micro-shards.js";
import type { RunContext } from "./run-context.js";

/** sft and reward checkpoints are counted in steps; one "iteration" of the checkpoint interval is this many. */
const STEPS_PER_CHECKPOINT_UNIT = 100;
const EVAL_ROWS_PER_SHARD = 16;

export interface SupervisedStage<Row> {
  readonly stage: "sft" | "reward";
  readonly rows: readonly Row[];
  readonly heldOut: readonly Row[];
  readonly epochs: number;
  readonly batchSize: number;
  readonly optimizer: OptimizerConfig;
  readonly model: ModelSource;
  readonly head: "lm" | "scalar";
  readonly lengthOf: (row: Row) => number;
  readonly wrap: (rows: readonly Row[]) => ShardRows;
  /** What the loss is divided by: counted tokens (sft) or pairs (reward) of the minibatch. */
  readonly denominatorOf: (rows: readonly Row[]) => number;
  /** Numbers of one step, from the sums over its minibatch. */
  readonly stepMetrics: (
    sums: Readonly<Record<string, number>>,
    denominator: number,
  ) => Record<string, number>;
  /** Numbers over all held-out rows. */
  readonly evalMetrics: (rows: Readonly<Record<string, Float64Array>>) => Record<string, number>;
}

export interface SupervisedResult {
  readonly before: Readonly<Record<string, number>>;
  readonly after: Readonly<Record<string, number>>;
  readonly model: ModelSource;
  readonly directory: string;
  readonly stateSha256: string;
}

export async function runSupervisedStage<Row>(
  run: RunContext,
  stage: SupervisedStage<Row>,
): Promise<SupervisedResult> {
  const { config, learners, bus, signal, checkpointer } = run;
  const { stage: name, rows, batchSize } = stage;
  const stepsPerEpoch = Math.floor(rows.length / batchSize);
  const totalSteps = stepsPerEpoch * stage.epochs;
  const startedMs = performance.now();

  const minibatchOf = (step: number): Row[] => {
    const epoch = Math.floor((step - 1) / stepsPerEpoch);
    const order = minibatches(epochOrder(rows.length, name, config.seed, epoch), batchSize)[
      (step - 1) % stepsPerEpoch
    ];
    return Array.from(order, (index) => rows[index]);
  };
  const shardCount = shardCountOf(batchSize, config.cluster.microShards);

  learners.startStage({
    stage: name,
    models: [{ ...stage.model, role: "model", head: stage.head }],
    tokenizer: run.tokens,
    checkpointState: (checkpointId) => checkpointer.stateOf(checkpointId),
    materialize: async (_ids, _input, step): Promise<StepInputs> => {
      const batch = minibatchOf(step);
      const shards = cutMicroShards(batch, shardCount, stage.lengthOf).map((part, index): MicroShard => ({
        index,
        rows: stage.wrap(part),
      }));
      const learningRates = { model: learningRateAt(stage.optimizer, step - 1, totalSteps) };
      return { shards, denominator: stage.denominatorOf(batch), ptxDenominator: 0, learningRates };
    },
  });

  const evaluate = async () => {
    if (stage.heldOut.length === 0) return {};
    const shards = groupsOf(stage.heldOut, EVAL_ROWS_PER_SHARD).map((part, index) => ({
      index,
      rows: stage.wrap(part),
    }));
    return stage.evalMetrics(await learners.evaluate(shards, signal));
  };

  /** Optimizer steps (of every learner, when they average parameters) that make one step of the run. */
  const every = learners.minibatchesPerStep;
  const requestOf = (step: number): StepRequest => {
    const request = { step, experienceIds: [], input: null, shardCount, isFinalUse: true };
    if (!learners.averagesParameters) return request;
    const first = (step - 1) * every + 1;
    const count = Math.min(every, totalSteps - first + 1);
    return roundRequest(new Array<StepRequest>(count).fill(request), step, first);
  };

  const firstStep = run.host.state.durable.stage === name ? run.host.state.durable.finishedStep + 1 : 1;
  bus.publish({
    type: "stage-started",
    stage: name,
    unit: "step",
    totalUnits: totalSteps,
    completedUnits: Math.min((firstStep - 1) * every, totalSteps),
  });
  const before = await run.results.remember(`${name}.before`, evaluate);

  for (let step = firstStep; (step - 1) * every < totalSteps; step++) {
    const stepStartedMs = performance.now();
    const result = await learners.step(requestOf(step), signal);
    const doneBefore = (step - 1) * every;
    const done = Math.min(step * every, totalSteps);
    const batches = Array.from({ length: done - doneBefore }, (_, i) => minibatchOf(doneBefore + i + 1));
    const seconds = (performance.now() - stepStartedMs) / 1000;
    const total = (of: (batch: Row[]) => number) => batches.reduce((sum, batch) => sum + of(batch), 0);
    const tokens = total((batch) => batch.reduce((sum, row) => sum + stage.lengthOf(row), 0));
    const trainedShare = result.minibatches / batches.length;
    const numbers: Record<string, number> = {
      ...stage.stepMetrics(
        mapValues(result.sums, (sum) => sum / result.minibatches),
        total(stage.denominatorOf) / batches.length,
      ),
      grad_norm: learners.gradientNorms.model ?? NaN,
      lr: learningRateAt(stage.optimizer, done - 1, totalSteps),
      "perf/allreduce_seconds": result.allReduceMs / 1000,
      "perf/tokens_per_second": (tokens * trainedShare) / seconds,
    };
    run.metrics.optimizerStep.set(done);
    run.metrics.stageLoss.set({ stage: name }, numbers.loss);
    bus.publish({
      type: "progress",
      stage: name,
      completedUnits: done,
      totalUnits: totalSteps,
      metrics: numbers,
    });
    const interval = config.checkpoint.everyIterations * STEPS_PER_CHECKPOINT_UNIT;
    const isDue = Math.floor(done / interval) > Math.floor(doneBefore / interval);
    if (interval > 0 && isDue && done < totalSteps) {
      await checkpointer.save({
        stage: name,
        step,
        completedUnits: done,
        resume: null,
        model: stage.model,
        role: "model",
        head: stage.head,
      });
    }
  }

  const after = await evaluate();
  const { artifacts, stateSha256 } = await learners.publish(
    [
      { what: "model:model", artifactName: `${name}/final` },
      ...(hasAdapters(config) ? [{ what: "adapter:model", artifactName: `${name}/adapter` }] : []),
    ],
    signal,
  );
  const directory = await run.models.save(name, stage.model, stage.head, artifacts[0].localPath);
  if (hasAdapters(config)) await run.models.saveAdapter(name, artifacts[1].localPath);
  const model = await run.models.adopt(`models/${name}`, directory);
  bus.publish({
    type: "stage-finished",
    stage: name,
    elapsedMs: performance.now() - startedMs,
    metrics: after,
  });
  return { before, after, model, directory, stateSha256 };
}

const mapValues = (
  values: Readonly<Record<string, number>>,
  map: (value: number) => number,
): Record<string, number> =>
  Object.fromEntries(Object.entries(values).map(([name, value]) => [name, map(value)]));
